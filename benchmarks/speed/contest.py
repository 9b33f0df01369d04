"""Engines that take turns: each is a process of its own, only one of which works at any time."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.works import Work

ENGINES = Path(__file__).parent / "engines"
_REST_SECONDS = 0.02
"""Longer than thread pools spin after their last task."""
_TURN_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Contestant:
    """An engine with one way to run the model.

    Attributes:
        name: Name in tables.
        script: File in ``engines``.
        variant: What the script is asked for.
        python: Interpreter of its environment.
        folder: The model as the engine reads it.
    """

    name: str
    script: str
    variant: str
    python: Path
    folder: Path


@dataclasses.dataclass
class Outcome:
    """What one contestant did.

    Attributes:
        missing: Why it did not take part; empty if it did.
        rounds: Median seconds of a call in each round.
        similarity: Cosine of its output and that of the reference.
    """

    missing: str = ""
    rounds: list[float] = dataclasses.field(default_factory=list)
    similarity: float = 0.0


def compete(
    contestants: Sequence[Contestant], work: Work, *, threads: int, rounds: int, limit: int, scratch: Path
) -> dict[str, Outcome]:
    """Runs the rounds; the first contestant's output is the reference of the others.

    Args:
        contestants: Who takes part; the order changes from round to round.
        work: The call.
        threads: Threads of each.
        rounds: Turns of each.
        limit: Token ids lie below this.
        scratch: Folder for outputs.
    """
    outcomes = {contestant.name: Outcome() for contestant in contestants}
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for contestant in contestants:
            request = {
                "folder": str(contestant.folder.resolve()), "variant": contestant.variant, "threads": threads,
                "kind": work.kind, "batch": work.batch, "tokens": work.tokens, "limit": limit,
                "output": str((scratch / f"{contestant.name}.npy").resolve()),
            }  # fmt: skip
            process = _start(contestant, threads)
            answer = _ask(process, request)
            if "missing" in answer:
                outcomes[contestant.name].missing = answer["missing"]
                process.wait()
                continue
            running[contestant.name] = process
        names = list(running)
        for index in range(rounds if names else 0):
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                time.sleep(_REST_SECONDS)
                times = _ask(running[name], {"seconds": _TURN_SECONDS})
                outcomes[name].rounds.append(float(np.median(times)))
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    _compare(outcomes, [c.name for c in contestants], scratch)
    return outcomes


def _start(contestant: Contestant, threads: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [str(contestant.python), str(ENGINES / contestant.script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def _ask(process: subprocess.Popen[str], request: dict[str, Any]) -> Any:
    if process.stdin is None or process.stdout is None:
        raise ValueError("an engine is asked over pipes")
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    return json.loads(line) if line else {"missing": f"the engine ended with status {process.wait()}"}


def _compare(outcomes: dict[str, Outcome], names: Sequence[str], scratch: Path) -> None:
    present = [name for name in names if not outcomes[name].missing]
    outputs = {name: np.load(scratch / f"{name}.npy").ravel().astype(np.float64) for name in present}
    for name in present:
        a, b = outputs[present[0]], outputs[name]
        outcomes[name].similarity = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
