"""What a run is to do, checked before anything is written, and the stages that do it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeq.checkpoint import read_adapter
from edgeq.compress import compress_model
from edgeq.deploy.accuracy import measure_accuracy
from edgeq.deploy.compare import PREDICTIONS_FILE
from edgeq.deploy.perplexity import MOST_TOKENS, measure_perplexity
from edgeq.deploy.pipeline import Stage
from edgeq.deploy.state import fingerprint_source
from edgeq.deploy.training import placed, training_folder_name, training_parameters
from edgeq.doctor import diagnose
from edgeq.errors import UnsupportedError, UsageError
from edgeq.evaluate.data import EvaluationSet, TextFile, read_evaluation_set, read_text_file
from edgeq.export.exporter import CACHE_DTYPES, DEFAULT_CACHE, export_onnx
from edgeq.files import write_text
from edgeq.hub import resolve_source
from edgeq.ledger import ledger
from edgeq.parity import run_parity
from edgeq.progress import Progress
from edgeq.reading import sha256
from edgeq.recipes import (
    Recipe,
    TrainingRequest,
    check_calibration_data,
    check_request,
    default_texts,
    load_recipe,
)
from edgeq.report import write_report
from edgeq.report.gates import Gates
from edgeq.results import Accuracy
from edgeq.targets.builtin.target import Target, load_target
from edgeq.targets.bundle.model_info import read_model_info
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.devices.profiler import profile_bundle
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

HOST = "host"
"""Name of the target made from this machine's processor."""
_WRITING = ("generate", "seq2seq")
"""Tasks of models that generate text."""
_TABLES = (".tsv", ".csv", ".jsonl")
_SEQUENCE = 128
"""Tokens of a text in the profile, unless the model takes fewer or the user says otherwise."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        source: What the user named.
        name: What reports call the model.
        folder: The float checkpoint's folder.
        recipe: The recipe.
        task: What to make of the float checkpoint, or None for what it was made for.
        training: Data and options for a recipe that trains; None for others.
        calibration_data: Texts for a recipe that calibrates; None for those that come with edgeq.
        targets: Targets by name, in the user's order.
        data: Examples for the task stage, or None.
        gates: Limits of loss, bytes and latency.
        text: A text for the task stage of a model that continues texts, or None.
        opset: ONNX opset, or None for the exporter's default.
        cache: Type of the key/value cache of models that generate text: ``float16`` or ``float32``.
        context: Most tokens of a sequence for models that generate text, or None for as many as they have positions.
        rounds: Rounds of the profile.
        sequence: Tokens of a text in the profile.
        threads: Threads in the profile.
        force: Whether stages replace whatever has the name of their output.
    """

    source: str
    name: str
    folder: Path
    recipe: Recipe
    task: str | None
    training: TrainingRequest | None
    calibration_data: Path | None
    targets: dict[str, Target]
    data: EvaluationSet | None
    gates: Gates
    text: TextFile | None
    opset: int | None
    cache: str
    context: int | None
    rounds: int
    sequence: int
    threads: int
    force: bool

    @property
    def native(self) -> list[str]:
        """Names of the targets whose bundles run on this machine."""
        machine = this_machine()
        return [name for name, target in self.targets.items() if target.runs_on(machine)]

    @functools.cached_property
    def source_digest(self) -> str:
        """Digest of the float checkpoint; its files are read once, whatever asks."""
        return fingerprint_source(str(self.folder))

    def about(self) -> dict[str, Any]:
        """What the run is of, for ``deploy.json`` and the report."""
        trained = {} if self.training is None else {"training": training_folder_name(compression_parameters(self))}
        asked = {} if self.task is None else {"task": self.task}
        gates = {"gates": self.gates.to_json()} if self.gates.any else {}
        return trained | asked | gates | {
            "name": self.name,
            "source": self.source,
            "source_folder": str(self.folder.absolute()),
            "recipe": {key: getattr(self.recipe, key) for key in ("name", "summary", "sha256")},
            "targets": {
                name: {"summary": target.summary, "isa": target.isa, "cpu": target.cpu}
                for name, target in self.targets.items()
            },
        }


def make_plan(
    source: str | Path,
    *,
    name: str | None,
    recipe: str | Path | Recipe,
    task: str | None = None,
    training: TrainingRequest | None = None,
    calibration_data: str | Path | None = None,
    targets: Sequence[str],
    eval_data: str | Path | None,
    gates: Gates,
    opset: int | None,
    cache: str,
    context: int | None,
    rounds: int,
    sequence: int | None,
    threads: int,
    force: bool = False,
) -> Plan:
    """Checks everything that can be checked without doing the work.

    Raises:
        UsageError: If the source, the recipe, a target or the evaluation file is not there or makes no sense.
        UnsupportedError: If a target's compiler or emulator is missing on this machine.
    """
    if not targets:
        raise UsageError("name at least one --target; see 'edgeq targets'")
    chosen: dict[str, Target] = {}
    for wanted in targets:
        target = load_target(wanted)
        if target.name in chosen and chosen[target.name] != target:
            raise UsageError(f"two targets are called {target.name!r}; rename one of the files")
        chosen[target.name] = target
    folder = resolve_source(source)
    if cache not in CACHE_DTYPES:
        raise UsageError(f"the cache must be {' or '.join(CACHE_DTYPES)}, found {cache!r}")
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_request(resolved, training)
    check_calibration_data(resolved, calibration_data)
    model_task, sequence = _check_task(folder, task, context=context, sequence=sequence)
    reads_examples = eval_data is not None and model_task not in _WRITING
    plan = Plan(
        source=str(source),
        name=name or Path(source).name or folder.resolve().name,
        folder=folder,
        recipe=resolved,
        task=task,
        training=training,
        calibration_data=None if calibration_data is None else Path(calibration_data),
        targets=chosen,
        data=read_evaluation_set(eval_data) if eval_data is not None and reads_examples else None,
        gates=gates,
        text=_text_of(folder, model_task, eval_data, trains=training is not None),
        opset=opset,
        cache=cache,
        context=context,
        rounds=rounds,
        sequence=sequence,
        threads=threads,
        force=force,
    )
    _check_gates(plan)
    _check_tools(list(targets))
    return plan


def _check_task(
    folder: Path, task: str | None, *, context: int | None, sequence: int | None
) -> tuple[str, int]:
    """Refuses before minutes of work what a later stage would refuse.

    Returns:
        What the model is for, and the tokens of a text in the profile: as many as fit it, if nobody says.
    """
    adapter = read_adapter(folder, task=task)
    writes = adapter.task in _WRITING
    if context is not None and not writes:
        raise UsageError(
            f"--context is for models that generate text, and {adapter.architecture} does not; leave it out"
        )
    if context is not None and not 1 <= context <= adapter.max_positions:
        raise UsageError(
            f"--context must lie in 1..{adapter.max_positions}, the positions that the model has, found {context}"
        )
    limits = [adapter.max_positions, context, None if writes else read_model_info(folder).max_length]
    longest = min(limit for limit in limits if limit is not None) - writes
    if sequence is not None and sequence > longest:
        what = "before the token that the profile times" if writes else "of a text in the profile"
        raise UsageError(f"{folder} holds at most {longest} tokens {what}; give --sequence {longest} or less")
    return adapter.task, min(_SEQUENCE, longest) if sequence is None else sequence


def _check_gates(plan: Plan) -> None:
    """Refuses limits that nothing will be measured for."""
    if plan.gates.max_loss is not None and plan.data is None and plan.text is None:
        raise UsageError("--max-loss needs examples or a text to measure the loss on: give --eval-data FILE")
    if plan.gates.max_ms is not None and not plan.native:
        listed = ", ".join(plan.targets)
        raise UsageError(
            f"--max-ms needs a target that runs on this machine, found {listed}; add --target host, or measure on the "
            "device with 'edgeq profile --on'"
        )


def _text_of(folder: Path, task: str, eval_data: str | Path | None, *, trains: bool) -> TextFile | None:
    """Returns the text that a model's perplexity is measured on; data of a training may be of other kinds."""
    if eval_data is None or task not in _WRITING:
        return None
    is_text = Path(eval_data).suffix not in _TABLES
    if task == "generate" and is_text and (not trains or Path(eval_data).is_file()):
        return read_text_file(eval_data)
    if trains:
        return None
    if task == "generate":
        raise UsageError(f"{folder} continues texts, so --eval-data should be a text file, found the table {eval_data}")
    raise UnsupportedError(
        f"{folder} generates a text from an encoder input, whose quality deploy does not measure: leave --eval-data out"
    )


def _check_tools(targets: list[str]) -> None:
    for finding in diagnose(targets):
        if not finding.ok:
            fix = f"; to fix: {finding.fix_command}" if finding.fix_command else ""
            raise UnsupportedError(f"{finding.name}: {finding.detail}{fix} ('edgeq doctor' lists all of it)")


def stages_of(plan: Plan, out: Path, *, remark: Callable[[str], None] | None = None) -> list[Stage]:
    """Returns the stages of a plan; each writes below ``out``, and ``remark`` is told how the model was read."""
    compiles = [f"compile {name}" for name in plan.targets]
    native = [f"compile {name}" for name in plan.native]
    work = _Work(plan, out, remark)
    source = {"source": plan.source_digest}
    compression = compression_parameters(plan)
    source |= {} if plan.task is None else {"task": plan.task}
    opset = {"opset": plan.opset} | ({} if plan.cache == DEFAULT_CACHE else {"cache": plan.cache})
    measuring = {
        "rounds": plan.rounds,
        "sequence": plan.sequence,
        "threads": plan.threads,
        "machine": this_machine().model,
        "targets": list(plan.targets),
    }
    measured_on = plan.data or plan.text
    data: dict[str, Any] = {"data": None if measured_on is None else sha256(measured_on.path)}
    data |= {} if plan.text is None else {"tokens": MOST_TOKENS, "cache": plan.cache}
    results = ("accuracy", "parity", "ledger", "profile")
    return [
        Stage("compress", ("checkpoint",), (), compression, work.compress),
        Stage("export", ("onnx",), ("compress",), opset, work.export),
        Stage("export float", ("float-onnx",), (), source | opset, work.export_float),
        *_compile_stages(plan, work),
        Stage("ledger", ("ledger.json",), ("compress", "export", "export float", *compiles), {}, work.ledger),
        Stage("accuracy", ("accuracy.json", PREDICTIONS_FILE), ("compress", *native), source | data, work.accuracy),
        Stage("parity", ("parity.json",), ("compress", "export", *compiles), source, work.parity),
        Stage("profile", ("profile.json",), ("export float", *native), measuring, work.profile),
        Stage("report", ("report.json", "report.html"), results, plan.about(), work.report),
    ]


def compression_parameters(plan: Plan) -> dict[str, Any]:
    """Returns what the compressed checkpoint depends on, as JSON values."""
    source = {"source": plan.source_digest, "recipe": plan.recipe.sha256}
    source |= {} if plan.task is None else {"task": plan.task}
    texts = plan.calibration_data or (default_texts() if plan.recipe.calibrates else None)
    calibration = {} if texts is None else {"calibration": sha256(texts)}
    return source | training_parameters(plan.training) | calibration


def _compile_stages(plan: Plan, work: _Work) -> list[Stage]:
    """One stage a target; this machine's first, because the others' self-tests are made with it."""
    stages = []
    for name in sorted(plan.targets, key=lambda name: name != HOST):
        target = plan.targets[name]
        needs = ("export", f"compile {HOST}") if HOST in plan.targets and name != HOST else ("export",)
        description = json.loads(json.dumps(dataclasses.asdict(target)))
        run = functools.partial(work.compile, target)
        settings = {"target": description} | ({} if plan.context is None else {"context": plan.context})
        stages.append(Stage(f"compile {name}", (f"bundles/{name}",), needs, settings, run))
    return stages


@dataclasses.dataclass(frozen=True)
class _Work:
    """The work of each stage."""

    plan: Plan
    out: Path
    remark: Callable[[str], None] | None

    def compress(self, progress: Progress) -> None:
        compress_model(
            self.plan.folder,
            self.out / "checkpoint",
            recipe=self.plan.recipe,
            task=self.plan.task,
            training=placed(self.plan.training, self.out, parameters=compression_parameters(self.plan)),
            force=self.plan.force,
            calibration_data=self.plan.calibration_data,
            progress=progress,
            remark=self.remark,
        )

    def export(self, progress: Progress) -> None:
        self._export(self.out / "checkpoint", "onnx", progress)

    def export_float(self, progress: Progress) -> None:
        self._export(self.plan.folder, "float-onnx", progress, task=self.plan.task)

    def _export(self, checkpoint: Path, name: str, progress: Progress, *, task: str | None = None) -> None:
        options: dict[str, Any] = {"force": self.plan.force, "task": task}
        options |= {} if self.plan.opset is None else {"opset": self.plan.opset}
        export_onnx(checkpoint, self.out / name, cache=self.plan.cache, progress=progress, **options)

    def compile(self, target: Target, progress: Progress) -> None:
        # A bundle for another machine takes its golden output from this one's, where there is one.
        host = None if target.is_host or HOST not in self.plan.targets else self.bundle(HOST)
        bundle = self.bundle(target.name)
        compile_bundle(
            self.out / "onnx",
            bundle,
            target=target,
            context=self.plan.context,
            force=self.plan.force,
            progress=progress,
            host_bundle=host,
            remark=self.remark if target.name == next(iter(self.plan.targets)) else None,  # the same for all
        )

    def ledger(self, progress: Progress) -> None:
        progress("counting bytes", 0, 1)
        books = {
            "float": ledger(self.out / "float-onnx").to_json(),
            "checkpoint": ledger(self.out / "checkpoint").to_json(),
            "onnx": ledger(self.out / "onnx").to_json(),
            "bundles": {name: ledger(self.bundle(name)).to_json() for name in self.plan.targets},
        }
        self._write("ledger.json", _relative(books, self.out))
        progress("counting bytes", 1, 1)

    def accuracy(self, progress: Progress) -> None:
        bundles = {name: self.bundle(name) for name in self.plan.native}
        source, checkpoint = self.plan.folder, self.out / "checkpoint"
        (self.out / PREDICTIONS_FILE).unlink(missing_ok=True)
        if self.plan.data is not None:
            result = measure_accuracy(
                source,
                checkpoint,
                bundles,
                data=self.plan.data,
                task=self.plan.task,
                progress=progress,
                keep=self._keep_predictions,
            )
        elif self.plan.text is not None:
            cache = CACHE_DTYPES[self.plan.cache]
            result = measure_perplexity(
                source,
                checkpoint,
                bundles,
                text=self.plan.text,
                cache_dtype=cache,
                task=self.plan.task,
                progress=progress,
                keep=self._keep_predictions,
            )
        else:
            reason = "no evaluation data was given; use --eval-data FILE"
            if self.plan.training is not None and self.plan.training.eval_data is not None:
                reason = "deploy measures no such data; see result.json of the training"
            result = Accuracy(measured=False, reason=reason)
        self._write("accuracy.json", result.to_json())

    def _keep_predictions(self, predictions: dict[str, Any]) -> None:
        measured_on = self.plan.data or self.plan.text
        about = {} if measured_on is None else {"data_sha256": sha256(measured_on.path)}
        write_text(self.out / PREDICTIONS_FILE, json.dumps(about | predictions) + "\n")

    def parity(self, progress: Progress) -> None:
        self._write("parity.json", run_parity(self.out, progress=progress).to_json())

    def profile(self, progress: Progress) -> None:
        measured = {}
        for name in self.plan.native:
            measured[name] = self._profile(name, reading=False, progress=progress)
            generation = read_manifest(self.bundle(name)).generation
            if generation is not None and generation.source is not None:
                measured[f"{name}, reading"] = self._profile(name, reading=True, progress=progress)
        reason = "not this machine's processor: an emulator proves numbers, never latency"
        others = {name: reason for name in self.plan.targets if name not in measured}
        self._write("profile.json", {"measured": measured, "not_measured": others})

    def _profile(self, name: str, *, reading: bool, progress: Progress) -> dict[str, Any]:
        return profile_bundle(
            self.bundle(name),
            float_onnx=self.out / "float-onnx",
            sequence=self.plan.sequence,
            threads=self.plan.threads,
            rounds=self.plan.rounds,
            reading=reading,
            progress=progress,
        ).to_json()

    def report(self, progress: Progress) -> None:
        progress("drawing", 0, 1)
        write_report(self.out, force=self.plan.force)
        progress("drawing", 1, 1)

    def bundle(self, name: str) -> Path:
        return self.out / "bundles" / name

    def _write(self, name: str, value: Any) -> None:
        write_text(self.out / name, json.dumps(value, indent=1) + "\n")


def _relative(value: Any, folder: Path) -> Any:
    """Cuts the run's own place out of paths, so that a run that was moved is still right about itself."""
    if isinstance(value, dict):
        return {key: _relative(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_relative(entry, folder) for entry in value]
    return value.removeprefix(f"{folder}/") if isinstance(value, str) else value
