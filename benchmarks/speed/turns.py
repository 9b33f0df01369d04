"""Engines that take turns: each is a process of its own, only one of which works at any time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.benchmarks import Benchmark
from benchmarks.speed.setups import FLOOR, LEAST_SIMILARITY, Setup

ENGINES = Path(__file__).parent / "engines"
_REPOSITORY = Path(__file__).parents[2]
_REST_SECONDS = 0.05
"""Longer than thread pools spin after their last task."""
_TURN_SECONDS = 0.1


@dataclasses.dataclass
class Outcome:
    """What one setup did.

    Attributes:
        missing: Why it did not take part; empty if it did.
        rounds: Median seconds of a call in each round.
        similarity: Cosine of its output and that of the reference.
        versions: Its packages.
    """

    missing: str = ""
    rounds: list[float] = dataclasses.field(default_factory=list)
    similarity: float = 0.0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


class Engine:
    """The process of one setup, held to as many cores as it has threads."""

    def __init__(self, setup: Setup, threads: int) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(_REPOSITORY), **setup.environment,
        }  # fmt: skip
        self._setup, self._threads = setup, threads
        self.started = time.perf_counter()
        with _cores(threads):
            self._process = subprocess.Popen(
                [str(setup.python), str(ENGINES / setup.script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
            )  # fmt: skip

    def load(self, work: Benchmark, *, limit: int, output: Path) -> Any:
        """Has the model loaded and one call made.

        Args:
            work: The call.
            limit: Token ids lie below this.
            output: File for the call's output.

        Returns:
            ``load_seconds``, ``peak_kib`` and ``versions``, or ``missing``: the reason why it cannot.
        """
        return self.ask({
            "folder": str(self._setup.folder.resolve()), "variant": self._setup.variant,
            "threads": self._threads, "kind": work.kind, "batch": self._setup.batch or work.batch,
            "tokens": work.tokens, "new_tokens": work.new_tokens, "beams": work.beams, "limit": limit,
            "output": str(output.resolve()),
        })  # fmt: skip

    def make(self, variant: str) -> Any:
        """Has the files of a variant made, which a later process loads; returns ``made`` or ``missing``."""
        return self.ask({"make": True, "folder": str(self._setup.folder.resolve()), "variant": variant})

    def ask(self, request: dict[str, Any]) -> Any:
        """Sends one request and returns the answer; ``missing`` if the process has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("an engine is asked over pipes")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"missing": f"the engine ended with status {self._process.wait()}"}

    def stop(self) -> None:
        """Ends the process; one that it has started itself (OpenVINO's, for telemetry) may keep its pipes open."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def run_in_turns(
    setups: Sequence[Setup], work: Benchmark, *, threads: int, rounds: int, limit: int, scratch: Path
) -> dict[str, Outcome]:
    """Runs the rounds; the first setup's output is the reference of the others.

    Args:
        setups: Who takes part; the order changes from round to round.
        work: The call.
        threads: Threads of each.
        rounds: Turns of each.
        limit: Token ids lie below this.
        scratch: Folder for outputs.

    Raises:
        RuntimeError: If an engine ends in the middle.
    """
    outcomes = {setup.name: Outcome() for setup in setups}
    running: dict[str, Engine] = {}
    try:
        for setup in setups:
            engine = running[setup.name] = Engine(setup, threads)
            answer = engine.load(work, limit=limit, output=scratch / f"{setup.name}.npy")
            if "missing" in answer:
                outcomes[setup.name].missing = answer["missing"]
                running.pop(setup.name).stop()
                continue
            outcomes[setup.name].versions = answer["versions"]
        names = list(running)
        for index in range(rounds if names else 0):
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                time.sleep(_REST_SECONDS)
                times = running[name].ask({"seconds": _TURN_SECONDS})
                if "missing" in times:
                    raise RuntimeError(f"{name}: {times['missing']} in round {index + 1}")
                outcomes[name].rounds.append(float(np.median(times)))
    finally:
        for engine in running.values():
            engine.stop()
    _compare(outcomes, setups, scratch)
    return outcomes


@contextlib.contextmanager
def _cores(threads: int) -> Iterator[None]:
    """Lets processes that start meanwhile use the last ``threads`` of the available cores."""
    available = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(available)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, available)


def _compare(outcomes: dict[str, Outcome], setups: Sequence[Setup], scratch: Path) -> None:
    """Fills in the similarities, over the first text where batches differ; takes out who computes something else."""
    present = [c for c in setups if not outcomes[c.name].missing and c.name != FLOOR]
    outputs = [np.load(scratch / f"{c.name}.npy")[:1].ravel().astype(np.float64) for c in present]
    for setup, output in zip(present, outputs, strict=True):
        outcome, least = outcomes[setup.name], LEAST_SIMILARITY.get(setup.bits, -1.0)
        if output.shape != outputs[0].shape:  # OpenVINO's compressed weights on one AVX2 thread: nothing at all
            outcome.missing = f"its output has {output.size} numbers, the reference's {outputs[0].size}"
            continue
        outcome.similarity = float(outputs[0] @ output / (np.linalg.norm(outputs[0]) * np.linalg.norm(output)))
        if outcome.similarity < least:
            outcome.missing = f"computes something else: cosine with the reference {outcome.similarity:.4f} < {least}"
