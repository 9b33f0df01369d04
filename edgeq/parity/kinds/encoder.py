"""Encoders and classifiers: a grid of shapes, and texts, through every stage."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeq.backends import Arrays, run_all
from edgeq.backends.onnx_files import load_model
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.checkpoint import Checkpoint
from edgeq.parity.inputs.encoder import Feeds, make_feeds
from edgeq.parity.kinds.base import ComparedRun, ParityRun
from edgeq.parity.reference import Reference
from edgeq.parity.rules.bit_identical import one_by_one
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.parity.rules.rule import Again, BundleOutputs, Outputs, Part
from edgeq.progress import Progress
from edgeq.results import Conditions

_FILE = "model.onnx"


class EncoderParity(ParityRun):
    """Parity of a model that is called once a text: it gives vectors, or labels of the text or its tokens."""

    runs_in_float64 = True

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        super().__init__(folder, progress)
        self.reference = self.reference_of(folder.checkpoint)
        self.feeds = self._make_feeds()

    def count_quantized(self) -> int:
        """See :meth:`ParityRun.count_quantized`."""
        return self.reference.quantized_values(self.feeds.all)

    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.reference_of`."""
        return Reference(checkpoint)

    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """See :meth:`ParityRun.run_reference`."""
        if seed is None:
            return reference.run(self.feeds.all)
        return reference.run_with_noise(self.feeds.all, seed=seed)

    def judged(self, outputs: list[Arrays]) -> Outputs:
        """See :meth:`ParityRun.judged`."""
        feeds, grid = self.feeds.all[: len(outputs)], len(self.feeds.grid)
        texts = Part(outputs[grid:], feeds[grid:]) if len(outputs) > grid else None
        return Outputs({"": Part(outputs, feeds)}, texts=texts)

    def beginning(self, outputs: list[Arrays]) -> list[Arrays]:
        """See :meth:`ParityRun.beginning`."""
        return outputs[: len(self.feeds.grid)]

    def operators_alone(self) -> OperatorsAlone:
        """See :meth:`ParityRun.operators_alone`."""
        longest = max(self.feeds.grid, key=lambda feed: int(feed["input_ids"].size))
        attention = self.reference.record_attention(longest)
        layers = self.reference.record(longest)
        self.forget_decoded()
        return OperatorsAlone({"": self.exported()}, layers, attention=attention)

    def run_onnx_reference(self) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_reference`."""
        return run_all(OnnxReference(self.exported()), self.feeds.all)

    def exported(self) -> onnx.ModelProto:
        """Loads the exported model, which nobody holds while others compute."""
        return load_model(self.folder.path / "onnx" / _FILE)

    def run_onnx_runtime(self, folder: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_onnx_runtime`."""
        return run_all(OnnxRuntime(folder / _FILE, lean=True), self.feeds.all)

    def run_native(self, stage: str, bundle: Path) -> tuple[list[Arrays], BundleOutputs]:
        """See :meth:`ParityRun.run_native`."""
        access = self.folder.access
        two, one = access.load(bundle, threads=2), access.load(bundle, threads=1, verify=False)
        got, grid = run_all(two.run, self.feeds.all), self.feeds.grid
        whole, single = got[: len(grid)], run_all(one.run, grid)
        apart = [one_by_one(two.run, feed) for feed in grid]
        ways = [
            Again("1 thread", single, whole, against="2 threads"),
            Again("text by text", apart, whole, against="the whole batch"),
        ]
        return got, BundleOutputs(stage, ways)

    def run_emulated(self, bundle: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_emulated`."""
        return run_all(self.emulated(bundle), self.feeds.grid)

    def shared(self, mine: list[Arrays], theirs: list[Arrays]) -> tuple[list[Arrays], list[Arrays]]:
        """See :meth:`ParityRun.shared`."""
        count = min(len(mine), len(theirs))
        return mine[:count], theirs[:count]

    def conditions(self) -> Conditions:
        """See :meth:`ParityRun.conditions`."""
        return Conditions(
            noise_runs=self.noise_runs,
            feeds=tuple(feed["input_ids"].shape for feed in self.feeds.all),
            texts=len(self.folder.texts),
        )

    def _make_feeds(self) -> Feeds:
        checkpoint = self.reference.checkpoint
        config = checkpoint.model.config
        return make_feeds(
            checkpoint.adapter.graph_inputs,
            vocabulary=config.vocab_size,
            token_types=getattr(config, "type_vocab_size", 1),
            longest=checkpoint.adapter.max_positions,
            tokenizer=checkpoint.tokenizer,
            texts=self.folder.texts,
        )
