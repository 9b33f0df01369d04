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
from edgeq.parity.rules.bit_identical import check_bits, one_by_one
from edgeq.parity.rules.decisions import check_task, decisions
from edgeq.parity.rules.end_to_end import check_end_to_end, distance, noise_runs
from edgeq.parity.rules.operators_alone import OperatorsAlone
from edgeq.progress import Progress
from edgeq.results import Conditions

_FILE = "model.onnx"


class EncoderParity(ParityRun):
    """Parity of a model that is called once a text: it gives vectors, or labels of the text or its tokens."""

    def __init__(self, folder: ComparedRun, progress: Progress) -> None:
        super().__init__(folder, progress)
        self.reference = self.reference_of(folder.checkpoint)
        self.feeds = self._make_feeds()
        self.noisy: list[list[Arrays]] = []

    def measure_reference(self) -> None:
        """See :meth:`ParityRun.measure_reference`."""
        self.want = self.run_reference(self.reference)
        self.noisy = noise_runs(
            lambda seed: self.run_reference(self.reference, seed=seed),
            lambda outputs: [distance(outputs, self.want, self.feeds.all).rms],
            quantized_values=self.reference.quantized_values(self.feeds.all),
        )

    def reference_of(self, checkpoint: Checkpoint) -> Reference:
        """See :meth:`ParityRun.reference_of`."""
        return Reference(checkpoint)

    def run_reference(self, reference: Reference, *, seed: int | None = None) -> list[Arrays]:
        """See :meth:`ParityRun.run_reference`."""
        if seed is None:
            return reference.run(self.feeds.all)
        return reference.run_with_noise(self.feeds.all, seed=seed)

    def scored(self) -> list[Arrays]:
        """See :meth:`ParityRun.scored`."""
        return self.feeds.all

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
        return run_all(OnnxRuntime(folder / _FILE, decodes_each_call=True), self.feeds.all)

    def compare(self, stage: str, got: list[Arrays]) -> None:
        """Compares a stage with PyTorch on the feeds it was run on: all of them, or the grid."""
        feeds, want = self.feeds.all[: len(got)], self.want[: len(got)]
        envelope = [distance(run[: len(got)], want, feeds) for run in self.noisy]
        self.checks.append(check_end_to_end(stage, distance(got, want, feeds), envelope))
        texts = feeds[len(self.feeds.grid) :]
        if texts:
            decided = [decisions(run[-len(texts) :], texts) for run in (got, want, *self.noisy)]
            self.checks.append(check_task(stage, decided[0], decided[1], decided[2:]))

    def run_native(self, stage: str, bundle: Path) -> list[Arrays]:
        """See :meth:`ParityRun.run_native`."""
        access = self.folder.access
        two, one = access.load(bundle, threads=2), access.load(bundle, threads=1, verify=False)
        got, grid = run_all(two.run, self.feeds.all), self.feeds.grid
        whole, single = got[: len(grid)], run_all(one.run, grid)
        self.checks.append(check_bits(f"{stage}, 1 thread", single, whole, against="2 threads"))
        apart = [one_by_one(two.run, feed) for feed in grid]
        self.checks.append(check_bits(f"{stage}, text by text", apart, whole, against="the whole batch"))
        return got

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
            noise_runs=len(self.noisy),
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
