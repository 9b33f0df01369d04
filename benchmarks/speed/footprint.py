"""What programs take as a whole: seconds from start to first result, peak memory, and what compiling takes."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import prepare
from benchmarks.speed.benchmarks import AVX2, HOST, Benchmark
from benchmarks.speed.setups import OWN, REFERENCE, own, own_name, peers
from benchmarks.speed.turns import ENGINES, Engine

STARTS = (
    Benchmark("GPT-2 small, prompt of 160 and a step", "start", "gpt2-small", "step", ("ptq-w2e2a8",), 160),
    Benchmark("BERT-base, 128 tokens", "start", "bert-base", "encode", ("ptq-w2a8",), 128),
)
SMOKE_STARTS = (Benchmark("tiny BERT, 16 tokens", "start", "tiny-bert", "encode", ("ptq-w8a8",), 16),)
COMPILED = (("bert-base", "ptq-w2a8"), ("gpt2-small", "ptq-w2e2a8"))
"""Models and recipes whose compilation is measured."""

_TAKING_PART = (
    REFERENCE, "ONNX Runtime float32", "ONNX Runtime int8 dynamic", "ONNX Runtime MatMulNBits 4",
    "ONNX Runtime MatMulNBits 2", "OpenVINO int8 post-training", "OpenVINO 4-bit weights", "llama.cpp Q4_0",
    "llama.cpp Q2_K",
)  # fmt: skip
RUNNER = f"{OWN} {{}}, C runner ({AVX2})"
"""The C runner is in bundles for named targets; this one runs on most machines."""


@dataclasses.dataclass
class Footprint:
    """Readings of one program, one of each start.

    Attributes:
        name: Name in tables.
        missing: Why there are none.
        process_seconds: From the start of the process to the first result, interpreter and imports included.
        load_seconds: Of that, loading the model and the first call; empty for a program that does not tell.
        peak_kib: Most memory that was resident at any time.
    """

    name: str
    missing: str = ""
    process_seconds: list[float] = dataclasses.field(default_factory=list)
    load_seconds: list[float] = dataclasses.field(default_factory=list)
    peak_kib: list[int] = dataclasses.field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Returns the medians, and all readings beside them."""
        medians = {
            "process_seconds": _median(self.process_seconds),
            "load_seconds": _median(self.load_seconds),
            "peak_kib": _median(self.peak_kib),
        }
        return dataclasses.asdict(self) | medians | {"readings": dataclasses.asdict(self)}


def starts(
    work: Benchmark, *, models: Path, python: Path, threads: int, rounds: int, limit: int
) -> tuple[list[Footprint], dict[str, str]]:
    """Starts every program ``rounds`` times, in turns; returns the readings and the versions of packages.

    Args:
        work: What the first result is.
        models: Folder where models are kept.
        python: Interpreter of the peers' environment.
        threads: Threads of each.
        rounds: Starts of each.
        limit: Token ids lie below this.
    """
    taking_part = [peer for peer in peers(work, models=models, python=python) if peer.name in _TAKING_PART]
    taking_part += own(work, models=models)[:1]
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgeq-start-") as scratch:
        ids = Path(scratch) / "ids.txt"
        tokens = np.random.default_rng(0).integers(0, limit, (work.batch, work.tokens))
        ids.write_text("".join(" ".join(map(str, text)) + "\n" for text in tokens), encoding="ascii")
        programs: list[tuple[Footprint, Callable[[], dict[str, Any]]]] = []
        for setup in taking_part:
            start = _engine_start(setup, work, threads=threads, limit=limit, scratch=Path(scratch))
            programs.append((Footprint(setup.name), start))
        runner = Footprint(RUNNER.format(own_name(work.recipes[0]).removeprefix(f"{OWN} ")))
        programs.append((runner, _runner_start(work, models=models, threads=threads, ids=ids)))
        for _ in range(rounds):
            for footprint, start in programs:
                _read(footprint, start, versions)
    return [footprint for footprint, _ in programs], versions


def compilation(model: str, recipe: str, *, models: Path) -> Footprint:
    """Runs ``edgeq compile`` once in a process of its own."""
    onnx = prepare.low_bit_onnx(model, recipe, root=models).resolve()
    with tempfile.TemporaryDirectory(prefix="edgeq-compile-") as scratch:
        program = Path(sys.executable).with_name("edgeq")
        found = _program([str(program), "compile", str(onnx), f"{scratch}/bundle", "--target", HOST])
    footprint = Footprint(f"edgeq compile, {model}, {recipe.removeprefix('ptq-')}", found.get("missing", ""))
    if not footprint.missing:
        footprint.process_seconds.append(found["process_seconds"])
        footprint.peak_kib.append(found["peak_kib"])
    return footprint


def _engine_start(
    setup: Any, work: Benchmark, *, threads: int, limit: int, scratch: Path
) -> Callable[[], dict[str, Any]]:
    def start() -> dict[str, Any]:
        engine = Engine(setup, threads)
        try:
            answer: dict[str, Any] = engine.load(work, limit=limit, output=scratch / "output.npy")
            return answer | {"process_seconds": time.perf_counter() - engine.started}
        finally:
            engine.stop()

    return start


def _runner_start(work: Benchmark, *, models: Path, threads: int, ids: Path) -> Callable[[], dict[str, Any]]:
    bundle = prepare.bundle_folder(work.model, work.recipes[0], target=AVX2, root=models).resolve()
    command = [str(bundle / "edgeq-run"), str(bundle), "--ids", str(ids), "--threads", str(threads), "--no-verify"]
    # Two tokens: the first comes from the prompt, the second from a step.
    command += ["--generate", "2", "--ignore-end"] if work.kind == "step" else []

    if not bundle.is_dir():
        return lambda: {"missing": f"{bundle} is not there"}
    return lambda: _program(command)


def _read(footprint: Footprint, start: Callable[[], dict[str, Any]], versions: dict[str, str]) -> None:
    if footprint.missing:
        return
    answer = start()
    if "missing" in answer:
        footprint.missing = answer["missing"]
        return
    versions |= answer.get("versions", {})
    footprint.process_seconds.append(answer["process_seconds"])
    footprint.peak_kib.append(answer["peak_kib"])
    if "load_seconds" in answer:
        footprint.load_seconds.append(answer["load_seconds"])


def _program(command: list[str]) -> dict[str, Any]:
    """Runs a program to its end; returns ``process_seconds`` and ``peak_kib``, or ``missing``."""
    launcher = [sys.executable, "-S", str(ENGINES / "program.py")]
    found: dict[str, Any] = json.loads(subprocess.run([*launcher, *command], capture_output=True, check=True).stdout)
    if found["status"]:
        return {"missing": f"{Path(command[0]).name} ended with status {found['status']}"}
    return found


def _median(readings: Sequence[float]) -> float | None:
    return statistics.median(readings) if readings else None
