"""The stages that carry out a plan, each writing below the run's folder."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.compress import compress_model
from edgeq.deploy.accuracy import measure_accuracy
from edgeq.deploy.compare import PREDICTIONS_FILE
from edgeq.deploy.perplexity import MOST_TOKENS, measure_perplexity
from edgeq.deploy.pipeline import Stage
from edgeq.deploy.plan import HOST, Plan
from edgeq.deploy.request import DeployRequest
from edgeq.deploy.size_check import check_stored_size
from edgeq.deploy.training import placed
from edgeq.export.exporter import DEFAULT_CACHE, export_onnx
from edgeq.ledger import ledger
from edgeq.models.cache import CACHE_DTYPES, baseline_dtype
from edgeq.parity import run_parity
from edgeq.progress import Progress
from edgeq.report import write_report
from edgeq.results import Accuracy, Predictions, Profile, RunLedger, RunProfile, StoredBytes
from edgeq.results.base import plain
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.devices.profiler import profile_bundle
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest


def stages_of(plan: Plan, out: Path, *, remark: Callable[[str], None] | None = None) -> list[Stage]:
    """Returns the stages of a plan; each writes below ``out``, and ``remark`` is told how the model was read."""
    compiles = [f"compile {name}" for name in plan.targets]
    native = [f"compile {name}" for name in plan.native]
    work, request = _Work(plan, out, remark), plan.request
    source = {"source": plan.source_digest} | ({} if request.task is None else {"task": request.task})
    opset = {"opset": request.opset} | ({} if request.cache == DEFAULT_CACHE else {"cache": request.cache})
    measuring = {
        "rounds": request.rounds,
        "sequence": plan.sequence,
        "threads": request.threads,
        "machine": this_machine().model,
        "targets": list(plan.targets),
        "version": RunProfile.version,
    }
    ledgers = {"version": RunLedger.version}
    data: dict[str, Any] = {"data": plan.data_digest}
    data |= {} if plan.text is None else {"tokens": MOST_TOKENS, "cache": request.cache}
    results = ("accuracy", "parity", "ledger", "profile")
    return [
        Stage("compress", ("checkpoint",), (), plan.compression, work.compress),
        Stage("export", ("onnx",), ("compress",), opset, work.export),
        Stage("export float", ("float-onnx",), (), source | opset, work.export_float),
        *_compile_stages(plan, work),
        Stage("ledger", ("ledger.json",), ("compress", "export", "export float", *compiles), ledgers, work.ledger),
        Stage("accuracy", ("accuracy.json", PREDICTIONS_FILE), ("compress", *native), source | data, work.accuracy),
        Stage("parity", ("parity.json",), ("compress", "export", *compiles), source, work.parity),
        Stage("profile", ("profile.json",), ("export float", *native), measuring, work.profile),
        Stage("report", ("report.json", "report.html"), results, plain(plan.about()), work.report),
    ]


def _compile_stages(plan: Plan, work: _Work) -> list[Stage]:
    """One stage a target; this machine's first, because the others' self-tests are made with it."""
    stages = []
    for name in sorted(plan.targets, key=lambda name: name != HOST):
        target = plan.targets[name]
        needs = ("export", f"compile {HOST}") if HOST in plan.targets and name != HOST else ("export",)
        description = json.loads(json.dumps(dataclasses.asdict(target)))
        run = functools.partial(work.compile, target)
        settings = {"target": description} | ({} if plan.request.context is None else {"context": plan.request.context})
        stages.append(Stage(f"compile {name}", (f"bundles/{name}",), needs, settings, run))
    return stages


@dataclasses.dataclass(frozen=True)
class _Work:
    """The work of each stage."""

    plan: Plan
    out: Path
    remark: Callable[[str], None] | None

    @property
    def request(self) -> DeployRequest:
        return self.plan.request

    def compress(self, progress: Progress) -> None:
        compress_model(
            self.plan.folder,
            self.out / "checkpoint",
            recipe=self.plan.recipe,
            task=self.request.task,
            training=placed(self.request.training, self.out, parameters=self.plan.compression),
            force=self.request.force,
            calibration_data=self.request.calibration_data,
            progress=progress,
            remark=self.remark,
        )

    def export(self, progress: Progress) -> None:
        self._export(self.out / "checkpoint", "onnx", cache=self.request.cache, progress=progress)
        check_stored_size(self.out / "onnx", limit=self.request.gates.max_bytes)

    def export_float(self, progress: Progress) -> None:
        cache = baseline_dtype(CACHE_DTYPES[self.request.cache])
        self._export(self.plan.folder, "float-onnx", cache=str(cache).removeprefix("torch."), progress=progress)

    def _export(self, checkpoint: Path, name: str, *, cache: str, progress: Progress) -> None:
        # What a recipe that only trains writes is a float model, of which the task has to be said again.
        options: dict[str, Any] = {"force": self.request.force, "task": self.request.task}
        options |= {} if self.request.opset is None else {"opset": self.request.opset}
        export_onnx(checkpoint, self.out / name, cache=cache, progress=progress, **options)

    def compile(self, target: Target, progress: Progress) -> None:
        # A bundle for another machine takes its golden output from this one's, where there is one.
        host = None if target.is_host or HOST not in self.plan.targets else self.bundle(HOST)
        bundle = self.bundle(target.name)
        compile_bundle(
            self.out / "onnx",
            bundle,
            target=target,
            context=self.request.context,
            force=self.request.force,
            progress=progress,
            host_bundle=host,
            remark=self.remark if target.name == next(iter(self.plan.targets)) else None,  # the same for all
        )

    def ledger(self, progress: Progress) -> None:
        progress("counting bytes", 0, 1)
        books = RunLedger(
            float=self._stored("float-onnx"),
            checkpoint=self._stored("checkpoint"),
            onnx=self._stored("onnx"),
            bundles={name: self._stored(f"bundles/{name}") for name in self.plan.targets},
        )
        books.write(self.out / "ledger.json")
        progress("counting bytes", 1, 1)

    def _stored(self, part: str) -> StoredBytes:
        """The bytes of a part, which is named relative to the run: one that was moved is still right about itself."""
        return dataclasses.replace(ledger(self.out / part).stored(), path=part)

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
                task=self.request.task,
                progress=progress,
                keep=self._keep_predictions,
            )
        elif self.plan.text is not None:
            cache = CACHE_DTYPES[self.request.cache]
            result = measure_perplexity(
                source,
                checkpoint,
                bundles,
                text=self.plan.text,
                cache_dtype=cache,
                task=self.request.task,
                progress=progress,
                keep=self._keep_predictions,
            )
        else:
            reason = "no evaluation data was given; use --eval-data FILE"
            if self.request.training is not None and self.request.training.eval_data is not None:
                reason = "deploy measures no such data; see result.json of the training"
            result = Accuracy(measured=False, reason=reason)
        result.write(self.out / "accuracy.json")

    def _keep_predictions(self, predictions: Predictions) -> None:
        known = dataclasses.replace(predictions, data_sha256=self.plan.data_digest or "")
        known.write(self.out / PREDICTIONS_FILE)

    def parity(self, progress: Progress) -> None:
        run_parity(self.out, progress=progress).write(self.out / "parity.json")

    def profile(self, progress: Progress) -> None:
        measured = {}
        for name in self.plan.native:
            measured[name] = self._profile(name, reading=False, progress=progress)
            generation = read_manifest(self.bundle(name)).generation
            if generation is not None and generation.source is not None:
                measured[f"{name}, reading"] = self._profile(name, reading=True, progress=progress)
        reason = "not this machine's processor: an emulator proves numbers, never latency"
        others = {name: reason for name in self.plan.targets if name not in measured}
        RunProfile(measured, others).write(self.out / "profile.json")

    def _profile(self, name: str, *, reading: bool, progress: Progress) -> Profile:
        return profile_bundle(
            self.bundle(name),
            float_onnx=self.out / "float-onnx",
            sequence=self.plan.sequence,
            threads=self.request.threads,
            rounds=self.request.rounds,
            reading=reading,
            progress=progress,
        )

    def report(self, progress: Progress) -> None:
        progress("drawing", 0, 1)
        write_report(self.out, force=self.request.force)
        progress("drawing", 1, 1)

    def bundle(self, name: str) -> Path:
        return self.out / "bundles" / name
