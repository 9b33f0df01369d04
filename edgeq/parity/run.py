"""Runs every stage of a run folder against PyTorch and applies the four rules."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from edgeq.checkpoint import load_checkpoint
from edgeq.errors import FormatError, UsageError
from edgeq.parity.bits import Run, check_bits, one_by_one
from edgeq.parity.envelope import check_distance, check_end_to_end, distance, noise_runs
from edgeq.parity.feeds import Arrays, Feeds, make_feeds
from edgeq.parity.isolated import allowed, check_isolated, isolate
from edgeq.parity.reference import RecordedLayer, Reference
from edgeq.parity.report import Check, ParityReport
from edgeq.parity.sentences import SENTENCES
from edgeq.parity.stages import compiled_once, load_model, onnx_reference, onnx_runtime
from edgeq.parity.task import check_task, decisions
from edgeq.progress import Progress, silent
from edgeq.targets.emulator import run_many
from edgeq.targets.runtime.loader import load
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.target import Target, load_target

_STAGES_BESIDE_BUNDLES = 5


def run_parity(
    run: Path | str,
    *,
    targets: Mapping[str, Target] | None = None,
    texts: Sequence[str] = SENTENCES,
    progress: Progress = silent,
) -> ParityReport:
    """Compares every stage of a run with PyTorch.

    Args:
        run: Folder with ``checkpoint``, ``onnx``, ``bundles/<target>`` and, for the baseline, ``float-onnx``.
        targets: Targets made from files, by name: they say which emulator runs their bundles. Built-in
            ones need not be given.
        texts: Sentences for the task rule.
        progress: Told which stage runs.

    Returns:
        One check for each rule and stage; a breach is in the report, not an exception.

    Raises:
        UsageError: If the folder is not a run.
        FormatError: If a file of the run is damaged.
        UnsupportedError: If nothing here can run one of the bundles, or ONNX holds a low-bit layer as floats.
    """
    folder = Path(run)
    for name in ("checkpoint", "onnx"):
        if not (folder / name).is_dir():
            raise UsageError(f"{folder} is not a run of `edgeq deploy`: it holds no folder {name!r}")
    return _Parity(folder, dict(targets or {}), list(texts), progress).report()


class _Parity:
    """All stages of one run; ``checks`` grows from stage to stage."""

    def __init__(self, folder: Path, targets: dict[str, Target], texts: list[str], progress: Progress) -> None:
        self.folder = folder
        self.targets = targets
        self.texts = texts
        self.bundles = sorted(path.parent for path in (folder / "bundles").glob("*/manifest.json"))
        self.checks: list[Check] = []
        self.not_checked: list[str] = []
        self._progress = progress
        self._steps = _STAGES_BESIDE_BUNDLES + len(self.bundles)
        self._done = 0
        self._say("PyTorch")
        self.reference = Reference(load_checkpoint(folder / "checkpoint"))
        self.feeds = self._make_feeds()
        self.want = self.reference.run(self.feeds.all)
        self.noisy = noise_runs(
            lambda seed: self.reference.run_with_noise(self.feeds.all, seed=seed),
            self.want,
            self.feeds.all,
            quantized_values=self.reference.quantized_values(self.feeds.all),
        )

    def report(self) -> ParityReport:
        self._float_stages()
        alone = self._operators_alone()
        self._onnx_stages(alone)
        self._bundle_stages(alone)
        self._progress("parity", self._steps, self._steps)
        conditions = {
            "feeds": [list(feed["input_ids"].shape) for feed in self.feeds.all],
            "texts": len(self.texts),
            "noise_runs": len(self.noisy),
            "not_checked": self.not_checked,
        }
        return ParityReport(tuple(self.checks), conditions)

    def _say(self, stage: str) -> None:
        self._progress(f"parity: {stage}", self._done, self._steps)
        self._done += 1

    def _make_feeds(self) -> Feeds:
        checkpoint = self.reference.checkpoint
        config = checkpoint.model.config
        return make_feeds(
            checkpoint.adapter.input_names,
            vocabulary=config.vocab_size,
            token_types=config.type_vocab_size,
            longest=checkpoint.adapter.max_positions,
            tokenizer=checkpoint.tokenizer,
            texts=self.texts,
        )

    def _float_stages(self) -> None:
        """What compression costs, and whether the baseline of the profile computes the float model."""
        self._say("PyTorch float32")
        source = _source_of(self.folder)
        if source is None:
            self.not_checked.append("torch float32: the float model of this run is not known, or gone")
            return
        model, feeds = Reference(load_checkpoint(source)), self.feeds.all
        outputs = model.run(feeds)
        self.checks.append(check_distance("torch compressed", self.want, outputs, feeds))
        baseline = self.folder / "float-onnx" / "model.onnx"
        if not baseline.is_file():
            self.not_checked.append("onnxruntime float32: the run holds no float-onnx")
            return
        noisy = noise_runs(lambda seed: model.run_with_noise(feeds, seed=seed), outputs, feeds, quantized_values=0)
        envelope = [distance(run, outputs, feeds) for run in noisy]
        found = distance(_over(onnx_runtime(baseline), feeds), outputs, feeds)
        self.checks.append(check_end_to_end("onnxruntime float32", found, envelope))

    def _operators_alone(self) -> _Alone:
        self._say("operators alone")
        longest = max(self.feeds.grid, key=lambda feed: int(feed["input_ids"].size))
        layers = self.reference.record(longest)
        alone = _Alone(load_model(self.folder / "onnx" / "model.onnx"), layers)
        self.checks.append(alone.check("torch compressed", {case.output_name: case.output for case in alone.cases}))
        return alone

    def _onnx_stages(self, alone: _Alone) -> None:
        self._say("ONNX reference")
        self.checks.append(alone.check("onnx reference", onnx_reference(alone.model)(alone.feed)))
        self._compare("onnx reference", _over(onnx_reference(alone.whole), self.feeds.all))
        self._say("ONNX Runtime")
        outputs = onnx_runtime(alone.model.SerializeToString())(alone.feed)
        self.checks.append(alone.check("onnxruntime", outputs))
        runtime = onnx_runtime(self.folder / "onnx" / "model.onnx")
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

    def _bundle_stages(self, alone: _Alone) -> None:
        """Bundles that run here come first: what they compute is what every other one must compute."""
        if not self.bundles:
            self.not_checked.append("tvm: the run holds no bundle")
        first: tuple[str, list[Arrays]] | None = None
        for bundle in sorted(self.bundles, key=lambda path: (not _is_native(path), path.name)):
            stage = f"tvm {bundle.name}"
            self._say(stage)
            if _is_native(bundle):
                got = self._native(stage, bundle, alone)
            else:
                got = run_many(bundle, self.feeds.grid, target=self.targets.get(bundle.name))
            self._compare(stage, got)
            if first is None:
                first = (stage, got)
            else:
                shared = min(len(got), len(first[1]))
                self.checks.append(check_bits(stage, got[:shared], first[1][:shared], against=first[0]))

    def _native(self, stage: str, bundle: Path, alone: _Alone) -> list[Arrays]:
        outputs = compiled_once(alone.model, alone.feed, target=_target_of(bundle))
        self.checks.append(alone.check(stage, outputs))
        two, one = load(bundle, threads=2), load(bundle, threads=1, verify=False)
        got, grid = _over(two.run, self.feeds.all), self.feeds.grid
        whole, single = got[: len(grid)], _over(one.run, grid)
        self.checks.append(check_bits(f"{stage}, 1 thread", single, whole, against="2 threads"))
        apart = [one_by_one(two.run, feed) for feed in grid]
        self.checks.append(check_bits(f"{stage}, text by text", apart, whole, against="the whole batch"))
        return got


class _Alone:
    """The low-bit operators of a model, each with an input and output of its own."""

    def __init__(self, whole: onnx.ModelProto, layers: Mapping[str, RecordedLayer]) -> None:
        self.whole = whole
        self.model, self.cases = isolate(whole, layers)
        self.feed = {case.input_name: case.value for case in self.cases}
        self._limits = [allowed(case) for case in self.cases]

    def check(self, stage: str, outputs: Arrays) -> Check:
        return check_isolated(stage, self.cases, self._limits, [outputs[c.output_name] for c in self.cases])


def _is_native(bundle: Path) -> bool:
    target, machine = read_manifest(bundle).target, this_machine()
    return machine.architecture == target.architecture and not machine.lacks(target.cpu_flags)


def _target_of(bundle: Path) -> Target:
    """Returns this machine's target with the processor that the bundle was compiled for."""
    info = read_manifest(bundle).target
    same = {field: getattr(info, field) for field in ("triple", "cpu", "features", "isa", "cpu_flags")}
    return dataclasses.replace(load_target("host"), **same)


def _over(execute: Run, feeds: Sequence[Arrays]) -> list[Arrays]:
    return [execute(feed) for feed in feeds]


def _source_of(folder: Path) -> Path | None:
    """Returns the folder of the float model that ``deploy.json`` names, if it still exists."""
    path = folder / "deploy.json"
    if not path.is_file():
        return None
    try:
        source = Path(str(json.loads(path.read_text(encoding="utf-8"))["about"]["source_folder"]))
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not as `edgeq deploy` writes it ({error!r}); deploy again") from error
    return source if source.is_dir() else None
