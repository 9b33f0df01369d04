"""Engines in turns while other programs compute on the same cores, as on a phone, a router or a shared server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.benchmarks import BENCHMARKS, Benchmark
from benchmarks.speed.setups import OWN, Setup, own, peers
from benchmarks.speed.turns import Outcome, run_in_turns

OTHERS = (0, 2, 4)
"""How many other programs compute."""
PEERS = ("ONNX Runtime int8 dynamic", "OpenVINO int8 post-training", "CTranslate2 int8")
RECIPE = "ptq-w8a8"
_LIMIT = 1000
"""Token ids lie below this."""
_COMPUTE = "x = 1\nwhile True: x = (x * 1103515245 + 12345) % 2147483648"


def beside_others(*, models: Path, python: Path, threads: int, rounds: int, scratch: Path) -> list[dict[str, Any]]:
    """Times MiniLM at 128 tokens on every engine, alone and beside other programs.

    Args:
        models: Folder that ``python -m benchmarks.speed.run --prepare --group minilm`` filled.
        python: Interpreter of the peers' environment.
        threads: Threads of each engine.
        rounds: Turns of each.
        scratch: Folder for outputs.

    Returns:
        For each number of other programs the milliseconds of every engine (median over rounds of the median of a turn),
        why one is missing, and how much longer the best peer takes than edgeq (median over rounds of the ratio).
    """
    work = next(work for work in BENCHMARKS if work.group == "minilm" and work.tokens == 128 and RECIPE in work.recipes)
    setups = [peer for peer in peers(work, models=models, python=python) if peer.name in PEERS]
    setups.append(next(one for one in own(work, models=models) if one.variant == RECIPE))
    return [
        {"others": count, "threads": threads, **_table(_run(setups, work, count, threads, rounds, scratch))}
        for count in OTHERS
    ]


def _run(
    setups: list[Setup], work: Benchmark, others: int, threads: int, rounds: int, scratch: Path
) -> dict[str, Outcome]:
    with _computing(others):
        return run_in_turns(setups, work, threads=threads, rounds=rounds, limit=_LIMIT, scratch=scratch)


@contextmanager
def _computing(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", _COMPUTE]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _table(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    own_name = next(name for name in outcomes if name.startswith(OWN))
    there = {name: np.array(outcome.rounds) for name, outcome in outcomes.items() if not outcome.missing}
    found: dict[str, Any] = {
        "ms": {name: 1e3 * float(np.median(seconds)) for name, seconds in there.items()},
        "missing": {name: outcome.missing for name, outcome in outcomes.items() if outcome.missing},
    }
    ratios = {name: float(np.median(there[name] / there[own_name])) for name in there if name != own_name}
    best = min(ratios, key=lambda name: ratios[name], default=None)
    return found | {"best_peer": best, "ratio": None if best is None else ratios[best]}
