"""Finds the layer where a backend parts from PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.errors import UnsupportedError, UsageError
from edgeq.models import GenerativeAdapter, TorchDecoder, positions
from edgeq.parity.feeds import Arrays, make_feeds
from edgeq.parity.reference import Reference
from edgeq.parity.stages import cache_type, compiled_once, load_model, onnx_reference, onnx_runtime
from edgeq.parity.walk import Backend, LayerWalk, Step, first_outside
from edgeq.progress import Progress, silent
from edgeq.targets.target import load_target

BACKENDS = ("onnx-reference", "onnxruntime", "tvm")
_BATCH, _LENGTH = 2, 17
"""Odd, and one more than a register holds."""


@dataclasses.dataclass(frozen=True)
class BackendDiff:
    """What one backend made of every layer.

    Attributes:
        backend: One of :data:`BACKENDS`.
        steps: In the order of the graph.
    """

    backend: str
    steps: tuple[Step, ...]

    @property
    def first(self) -> Step | None:
        """The first step that leaves its envelope, or None."""
        return first_outside(self.steps)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {
            "backend": self.backend,
            "within": self.first is None,
            "first": None if self.first is None else dataclasses.asdict(self.first),
            "steps": [dataclasses.asdict(step) | {"within": step.is_within} for step in self.steps],
        }


def diff_layers(
    run: Path | str, *, backends: Sequence[str] = BACKENDS, progress: Progress = silent
) -> list[BackendDiff]:
    """Walks the layers of a run's exported model in each backend, beside PyTorch on the compressed checkpoint.

    Args:
        run: Folder with ``checkpoint`` and ``onnx``.
        backends: Some of :data:`BACKENDS`; ``tvm`` compiles the graph for this machine.
        progress: Told which backend runs.

    Raises:
        UsageError: If the folder is not a run, or a backend is unknown.
        UnsupportedError: If the kind of model is not walked.
        FormatError: If a file of the run is damaged.
    """
    folder = Path(run)
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise UsageError(f"there is no backend {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    if not (folder / "checkpoint").is_dir() or not (folder / "onnx").is_dir():
        raise UsageError(f"{folder} is not a run of `edgeq deploy`: it holds no checkpoint or no onnx")
    progress("diff: PyTorch", 0, 1 + len(backends))
    checkpoint = load_checkpoint(folder / "checkpoint")
    if checkpoint.adapter.task == "seq2seq":
        raise UnsupportedError(
            f"{checkpoint.adapter.architecture} is several graphs, which edgeq diff does not walk; `edgeq parity` "
            "says which of them differs"
        )
    model = load_model(folder / "onnx" / "model.onnx")
    walk, compiled_feed = _prepare(checkpoint, model)
    found = []
    for done, name in enumerate(backends, start=1):
        progress(f"diff: {name}", done, 1 + len(backends))
        found.append(BackendDiff(name, tuple(walk.run(_backend(name, compiled_feed)))))
    progress("diff", 1, 1)
    return found


def _prepare(checkpoint: Checkpoint, model: onnx.ModelProto) -> tuple[LayerWalk, Arrays]:
    """Returns the walk, and inputs that the compiled graph takes in place of the exported one's."""
    if isinstance(checkpoint.adapter, GenerativeAdapter):
        return _prepare_decoder(checkpoint, checkpoint.adapter, model)
    adapter, config = checkpoint.adapter, checkpoint.model.config
    length = min(_LENGTH, adapter.max_positions)
    feeds = make_feeds(
        adapter.input_names,
        vocabulary=config.vocab_size,
        token_types=config.type_vocab_size,
        longest=length,
        tokenizer=checkpoint.tokenizer,
        texts=[],
    )
    feed = max(feeds.grid, key=lambda feed: int(feed["input_ids"].size))
    return LayerWalk(model, Reference(checkpoint), feed), {}


def _prepare_decoder(
    checkpoint: Checkpoint, adapter: GenerativeAdapter, model: onnx.ModelProto
) -> tuple[LayerWalk, Arrays]:
    dtype = cache_type(model)
    decoder = TorchDecoder(checkpoint.model, adapter, cache_dtype=dtype)
    length = min(_LENGTH, adapter.max_positions)
    ids = np.random.default_rng(23).integers(0, adapter.config.vocab_size, (_BATCH, length))
    mask = np.ones_like(ids)
    feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask, queries=length)}
    empty = adapter.cache.empty(_BATCH, dtype=dtype)
    names = [name for name in adapter.input_names if name.startswith("past_key_values.")]
    cache = {name: tensor.numpy() for name, tensor in zip(names, empty, strict=True)}
    walk = LayerWalk(model, Reference(checkpoint, lambda given: decoder(**given)), {**feed, **cache})
    lengths = np.full(_BATCH, length, np.int64)
    return walk, {"past_lengths": np.zeros_like(lengths), "new_lengths": lengths}


def _backend(name: str, compiled_feed: Arrays) -> Backend:
    def reference(model: onnx.ModelProto, feed: Arrays) -> Arrays:
        return onnx_reference(model)(_taken(model, feed))

    def runtime(model: onnx.ModelProto, feed: Arrays) -> Arrays:
        return onnx_runtime(model.SerializeToString())(_taken(model, feed))

    def tvm(model: onnx.ModelProto, feed: Arrays) -> Arrays:
        return compiled_once(model, {**feed, **compiled_feed}, target=load_target("host"))

    return dict(zip(BACKENDS, (reference, runtime, tvm), strict=True))[name]


def _taken(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    names = {value.name for value in model.graph.input}
    return {name: value for name, value in feed.items() if name in names}
