"""Encoders and classifiers: a grid of shapes, and texts, through every stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.checkpoint import load_checkpoint
from edgeq.parity.bits import Run, check_bits, one_by_one
from edgeq.parity.envelope import check_distance, check_end_to_end, distance, noise_runs
from edgeq.parity.feeds import Arrays, Feeds, make_feeds
from edgeq.parity.operators import OperatorsAlone
from edgeq.parity.parity_run import ParityRun, RunFolder
from edgeq.parity.reference import Reference
from edgeq.parity.run_folder import is_native, source_of
from edgeq.parity.stages import onnx_reference, onnx_runtime
from edgeq.parity.task import check_task, decisions
from edgeq.progress import Progress
from edgeq.targets.emulator import run_many
from edgeq.targets.runtime.loader import load


class EncoderParity(ParityRun):
    """Parity of a model that maps a text to vectors or to a label."""

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress)
        self.reference = Reference(folder.checkpoint)
        self.feeds = self._make_feeds()
        self.want: list[Arrays] = []
        self.noisy: list[list[Arrays]] = []

    def run_stages(self) -> dict[str, Any]:
        """See :meth:`ParityRun.run_stages`."""
        self.want = self.reference.run(self.feeds.all)
        self.noisy = noise_runs(
            lambda seed: self.reference.run_with_noise(self.feeds.all, seed=seed),
            lambda outputs: distance(outputs, self.want, self.feeds.all).rms,
            quantized_values=self.reference.quantized_values(self.feeds.all),
        )
        self._float_stages()
        self.exported = self.load_exported()
        alone = self._operators_alone()
        self._onnx_stages(alone)
        self._bundle_stages(alone)
        return {
            "feeds": [list(feed["input_ids"].shape) for feed in self.feeds.all],
            "texts": len(self.folder.texts),
            "noise_runs": len(self.noisy),
        }

    def _make_feeds(self) -> Feeds:
        checkpoint = self.reference.checkpoint
        config = checkpoint.model.config
        return make_feeds(
            checkpoint.adapter.input_names,
            vocabulary=config.vocab_size,
            token_types=config.type_vocab_size,
            longest=checkpoint.adapter.max_positions,
            tokenizer=checkpoint.tokenizer,
            texts=self.folder.texts,
        )

    def _float_stages(self) -> None:
        """What compression costs, and whether the baseline of the profile computes the float model."""
        self.say("PyTorch float32")
        source = source_of(self.folder.path)
        if source is None:
            self.not_checked.append("torch float32: the float model of this run is not known, or gone")
            return
        model, feeds = Reference(load_checkpoint(source)), self.feeds.all
        outputs = model.run(feeds)
        self.checks.append(check_distance("torch compressed", self.want, outputs, feeds))
        baseline = self.folder.path / "float-onnx" / "model.onnx"
        if not baseline.is_file():
            self.not_checked.append("onnxruntime float32: the run holds no float-onnx")
            return
        envelope = noise_runs(
            lambda seed: distance(model.run_with_noise(feeds, seed=seed), outputs, feeds),
            lambda moved: moved.rms,
            quantized_values=0,
        )
        found = distance(_over(onnx_runtime(baseline), feeds), outputs, feeds)
        self.checks.append(check_end_to_end("onnxruntime float32", found, envelope))

    def _operators_alone(self) -> OperatorsAlone:
        self.say("operators alone")
        longest = max(self.feeds.grid, key=lambda feed: int(feed["input_ids"].size))
        alone = OperatorsAlone(self.exported, self.reference.record(longest))
        self.checks.append(alone.torch())
        return alone

    def _onnx_stages(self, alone: OperatorsAlone) -> None:
        self.say("ONNX reference")
        self.checks.append(alone.onnx_reference())
        self._compare("onnx reference", _over(onnx_reference(self.exported), self.feeds.all))
        self.say("ONNX Runtime")
        self.checks.append(alone.onnx_runtime())
        runtime = onnx_runtime(self.folder.path / "onnx" / "model.onnx")
        self._compare("onnxruntime", _over(runtime, self.feeds.all))

    def _compare(self, stage: str, got: list[Arrays]) -> None:
        """Compares a stage with PyTorch on the feeds it was run on: all of them, or the grid."""
        feeds, want = self.feeds.all[: len(got)], self.want[: len(got)]
        envelope = [distance(run[: len(got)], want, feeds) for run in self.noisy]
        self.checks.append(check_end_to_end(stage, distance(got, want, feeds), envelope))
        texts = feeds[len(self.feeds.grid) :]
        if texts:
            decided = [decisions(run[-len(texts) :], texts) for run in (got, want, *self.noisy)]
            self.checks.append(check_task(stage, decided[0], decided[1], decided[2:]))

    def _bundle_stages(self, alone: OperatorsAlone) -> None:
        """Bundles that run here come first: what they compute is what every other one must compute."""
        if not self.bundles:
            self.not_checked.append("tvm: the run holds no bundle")
        first: tuple[str, list[Arrays]] | None = None
        for bundle in self.bundles:
            stage = f"tvm {bundle.name}"
            self.say(stage)
            if is_native(bundle):
                got = self._native(stage, bundle, alone)
            else:
                got = run_many(bundle, self.feeds.grid, target=self.folder.targets.get(bundle.name))
            self._compare(stage, got)
            if first is None:
                first = (stage, got)
            else:
                shared = min(len(got), len(first[1]))
                self.checks.append(check_bits(stage, got[:shared], first[1][:shared], against=first[0]))

    def _native(self, stage: str, bundle: Path, alone: OperatorsAlone) -> list[Arrays]:
        self.checks.append(alone.compiled(stage, bundle))
        two, one = load(bundle, threads=2), load(bundle, threads=1, verify=False)
        got, grid = _over(two.run, self.feeds.all), self.feeds.grid
        whole, single = got[: len(grid)], _over(one.run, grid)
        self.checks.append(check_bits(f"{stage}, 1 thread", single, whole, against="2 threads"))
        apart = [one_by_one(two.run, feed) for feed in grid]
        self.checks.append(check_bits(f"{stage}, text by text", apart, whole, against="the whole batch"))
        return got


def _over(execute: Run, feeds: Sequence[Arrays]) -> list[Arrays]:
    return [execute(feed) for feed in feeds]
