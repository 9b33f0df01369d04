"""Programs from start to end, in turns: what they take beside an empty program, less what the model itself takes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runtime.footprint import runtime_environment

REPEATS = 20
"""Calls after the first, by which the model's own time is known."""
TEXT = "A cat sat on the mat."
WAYS: dict[str, list[str]] = {
    "as it is": [],
    "one thread": ["--threads", "1"],
    "one thread, no digests": ["--threads", "1", "--no-verify"],
    "one thread, SHA-256 of every file": ["--threads", "1", "--verify-all"],
}
"""Options of ``edgeq-run`` by what they show."""
_IMPORT = "import edgeq; edgeq.load({bundle!r}).encode([{text!r}])"


def starts(bundle: Path, empty: Path, *, rounds: int) -> dict[str, Any]:
    """Starts ``edgeq-run`` on one text, and a static program that does nothing, one after the other.

    Args:
        bundle: Bundle that embeds texts.
        empty: The empty program.
        rounds: Starts of each.

    Returns:
        Milliseconds of the empty program, and for each of :data:`WAYS` of the first result (``once``), of the model
        (``model``, from the calls after the first), of what is left (``start``) and that divided by the empty program's
        (``ratio``): the least of all rounds, for what else the machine does must not count, and the median.
    """
    commands: dict[str, list[str]] = {"empty": [str(empty)]}
    for way, options in WAYS.items():
        commands[way] = [str(bundle / "edgeq-run"), str(bundle), "--text", TEXT, *options]
        commands[f"{way}, repeated"] = [*commands[way], "--repeat", str(REPEATS)]
    taken = in_turns(commands, rounds)
    found: dict[str, Any] = {"rounds": rounds}
    for name, middle in (("least", np.min), ("median", np.median)):
        found[name] = {"empty_ms": 1e3 * middle(taken["empty"])}
        for way in WAYS:
            found[name][way] = _parts(taken, way, middle)
    return found


def _parts(taken: dict[str, list[float]], way: str, middle: Callable[[Sequence[float]], float]) -> dict[str, float]:
    once, often, empty = (middle(taken[name]) for name in (way, f"{way}, repeated", "empty"))
    model = (often - once) / REPEATS
    return {
        "once_ms": 1e3 * once,
        "model_ms": 1e3 * model,
        "start_ms": 1e3 * (once - model),
        "ratio": (once - model) / empty,
    }


def python_starts(bundle: Path, repository: Path, *, rounds: int) -> dict[str, float]:
    """Milliseconds of a fresh process from its start to the first result of a bundle, and of its parts, in turns.

    They run in an environment of ``edgeq[runtime]``: one for developing has finders of its own, which take time. (`-I`
    keeps the checkout out of the way.)
    """
    with runtime_environment(repository) as folder:
        return _python_starts(str(folder / "bin" / "python"), bundle, rounds)


def _python_starts(python: str, bundle: Path, rounds: int) -> dict[str, float]:
    commands = {
        "python": [python, "-I", "-c", "pass"],
        "import numpy": [python, "-I", "-c", "import numpy"],
        "first result": [python, "-I", "-c", _IMPORT.format(bundle=str(bundle), text=TEXT)],
    }
    taken = in_turns(commands, rounds)
    return {name: 1e3 * float(np.min(seconds)) for name, seconds in taken.items()}


def in_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command from start to end, one after the other, so many times."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(_seconds(command))
    return taken


def _seconds(command: list[str]) -> float:
    """Seconds from the start of a program to its end.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    began = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status = os.waitpid(process, 0)
    taken = time.perf_counter() - began
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return taken
