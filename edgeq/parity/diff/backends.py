"""Finds the first layer where a backend differs from PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgeq.backends import Arrays, Backend
from edgeq.backends.compiled import compiled_once
from edgeq.backends.onnx_files import cache_type, load_model
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.errors import UnsupportedError, UsageError
from edgeq.factor.manifest import FactorManifest
from edgeq.models import GenerativeAdapter, Seq2SeqAdapter, TorchDecoder, positions
from edgeq.parity.diff.layer_walk import LayerWalk, Opener
from edgeq.parity.inputs.encoder import make_feeds
from edgeq.parity.inputs.encoder_decoder import ENCODER, FIRST_STEP, NEXT_STEP, torch_parts
from edgeq.parity.reference import Reference
from edgeq.parity.run_folder import task_of_source
from edgeq.progress import Progress, silent
from edgeq.results import BackendDiff
from edgeq.targets.builtin.target import load_target

BACKENDS = ("onnx-reference", "onnxruntime", _COMPILED := "tvm")
_BATCH, _LENGTH = 2, 17
"""Odd, and one more than a register holds."""


def diff_layers(
    run: Path | str, *, backends: Sequence[str] | None = None, progress: Progress = silent
) -> list[BackendDiff]:
    """Walks the layers of a run's exported model in each backend, beside PyTorch on the compressed checkpoint.

    Args:
        run: Folder with ``checkpoint`` and ``onnx``.
        backends: Some of :data:`BACKENDS`; ``tvm`` compiles the graph for this machine. All that can walk the model
            if None: an encoder-decoder is walked as exported, not as compiled.
        progress: Told which backend runs.

    Raises:
        UsageError: If the folder is not a run, or a backend is unknown.
        UnsupportedError: If a backend cannot walk this kind of model.
        FormatError: If a file of the run is damaged.
    """
    folder = Path(run)
    if unknown := [name for name in backends or () if name not in BACKENDS]:
        raise UsageError(f"there is no backend {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    if not (folder / "checkpoint").is_dir() or not (folder / "onnx").is_dir():
        raise UsageError(f"{folder} is not a run of `edgeq deploy`: it lacks 'checkpoint' or 'onnx'; deploy again")
    checkpoint = load_checkpoint(folder / "checkpoint", task=task_of_source(folder))
    _check_layers(checkpoint)
    chosen = _chosen(checkpoint, backends)
    progress("diff: PyTorch", 0, 1 + len(chosen))
    walks, compiled_feed = _prepare(checkpoint, folder / "onnx")
    found = []
    for done, name in enumerate(chosen, start=1):
        progress(f"diff: {name}", done, 1 + len(chosen))
        open_in = _opener(name, compiled_feed)
        found.append(BackendDiff(name, tuple(step for walk in walks for step in walk.run(open_in))))
    progress("diff", 1, 1)
    return found


def _check_layers(checkpoint: Checkpoint) -> None:
    """Refuses models whose modules are not what the exported graph computes one by one."""
    factors = FactorManifest.from_json(checkpoint.manifest.factors if checkpoint.manifest else {})
    if name := next((name for name, spec in factors.layers.items() if not spec.walks_layer_by_layer), None):
        raise UnsupportedError(
            f"{name} is a slice of a Tucker bank, whose matmuls the exported graph orders differently than PyTorch; "
            "edgeq diff does not walk such models, `edgeq parity` compares them"
        )


def _chosen(checkpoint: Checkpoint, backends: Sequence[str] | None) -> Sequence[str]:
    """Returns the backends that walk a model: all that can, or those that were asked for."""
    if checkpoint.adapter.task != "seq2seq":
        return BACKENDS if backends is None else backends
    if backends is not None and _COMPILED in backends:
        raise UnsupportedError(
            f"{checkpoint.adapter.architecture} is compiled with its encoder input in caches, which edgeq diff does "
            f"not cut into layers; leave --backend {_COMPILED} out (`edgeq parity` compares the bundle)"
        )
    return [name for name in BACKENDS if name != _COMPILED] if backends is None else backends


def _prepare(checkpoint: Checkpoint, folder: Path) -> tuple[list[LayerWalk], Arrays]:
    """Returns the walks of all graphs, and inputs that a compiled graph takes in place of the exported one's."""
    adapter, config = checkpoint.adapter, checkpoint.model.config
    if isinstance(adapter, Seq2SeqAdapter):
        return _prepare_encoder_decoder(checkpoint, adapter, folder), {}
    model = load_model(folder / "model.onnx")
    if isinstance(adapter, GenerativeAdapter):
        return _prepare_decoder(checkpoint, adapter, model)
    feeds = make_feeds(
        adapter.graph_inputs,
        vocabulary=config.vocab_size,
        token_types=getattr(config, "type_vocab_size", 1),
        longest=min(_LENGTH, adapter.max_positions),
        tokenizer=checkpoint.tokenizer,
        texts=[],
    )
    feed = max(feeds.grid, key=lambda feed: int(feed["input_ids"].size))
    return [LayerWalk(model, Reference(checkpoint), feed)], {}


def _prepare_encoder_decoder(checkpoint: Checkpoint, adapter: Seq2SeqAdapter, folder: Path) -> list[LayerWalk]:
    """The encoder, then the decoder's first step on a whole target, with the reference's states of the encoder."""
    exported = {name: load_model(folder / f"{name}.onnx") for name in (ENCODER, FIRST_STEP, NEXT_STEP)}
    parts = torch_parts(checkpoint.model, adapter, cache_dtype=cache_type(exported[NEXT_STEP]))
    # Source and target are equally long: a tensor's shape does not tell which of them it belongs to.
    length = min(_LENGTH, adapter.max_positions)
    source, target = np.random.default_rng(24).integers(0, adapter.config.vocab_size, (2, _BATCH, length))
    mask = np.ones_like(source)
    read = {"input_ids": source, "attention_mask": mask}
    states = parts[ENCODER](read)["last_hidden_state"]
    written = {"encoder_attention_mask": mask, "input_ids": target, "encoder_hidden_states": states}

    def walk(part: str, feed: Arrays) -> LayerWalk:
        model = exported[part]
        reference = Reference(checkpoint, lambda given: parts[part](_taken(model, given)))
        return LayerWalk(model, reference, {"attention_mask": mask, **feed}, graph_feed=feed)

    return [walk(ENCODER, read), walk(FIRST_STEP, written)]


def _prepare_decoder(
    checkpoint: Checkpoint, adapter: GenerativeAdapter, model: onnx.ModelProto
) -> tuple[list[LayerWalk], Arrays]:
    dtype = cache_type(model)
    decoder = TorchDecoder(checkpoint.model, adapter, cache_dtype=dtype)
    length = min(_LENGTH, adapter.max_positions)
    ids = np.random.default_rng(23).integers(0, adapter.config.vocab_size, (_BATCH, length))
    mask = np.ones_like(ids)
    feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask, queries=length)}
    cache = {name: tensor.numpy() for name, tensor in adapter.empty_cache(_BATCH, dtype=dtype).items()}
    walk = LayerWalk(model, Reference(checkpoint, lambda given: decoder(**given)), {**feed, **cache})
    lengths = np.full(_BATCH, length, np.int64)
    return [walk], {"past_lengths": np.zeros_like(lengths), "new_lengths": lengths}


def _opener(name: str, compiled_feed: Arrays) -> Opener:
    def reference(model: onnx.ModelProto) -> Backend:
        return _Taking(model, OnnxReference(model))

    def runtime(model: onnx.ModelProto) -> Backend:
        return _Taking(model, OnnxRuntime(model.SerializeToString(), lean=True))

    def tvm(model: onnx.ModelProto) -> Backend:
        return lambda feed: compiled_once(model, {**feed, **compiled_feed}, target=load_target("host"))

    return dict(zip(BACKENDS, (reference, runtime, tvm), strict=True))[name]


class _Taking:
    """A backend that is given more than its graph takes."""

    def __init__(self, model: onnx.ModelProto, backend: Backend) -> None:
        self._model, self._backend = model, backend

    def __call__(self, feed: Arrays, /) -> Arrays:
        return self._backend(_taken(self._model, feed))


def _taken(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    names = {value.name for value in model.graph.input}
    return {name: value for name, value in feed.items() if name in names}
