"""Format 1, whose bundles ran in TVM's virtual machine, beside today's: the same checkpoints, in turns.

The code of format 1 is in a checkout of the last commit that had it; it runs with the packages of today, in
processes of its own. Figures of that time which need more than that are quoted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runtime.starts import REPEATS, TEXT, in_turns

COMMIT = "cbde809"
"""The last commit whose bundles are of format 1."""
PROGRAM_TARGET = "x86-64-v3"
"""Bundles of format 1 for the host hold no ``edgeq-run``; those for this target do."""
QUOTED: dict[str, Any] = {
    "native files of an aarch64 bundle": "5.2 MiB and more",
    "environment beside numpy": "318 MB, 259 of them TVM's compiler",
    "start to the first result less the model's time": "4.5 times that of a program with TVM's libraries",
    "Python's own cost of a token and of an embedding, ms": "0.15 to 0.25",
    "peak memory beyond weights, caches and arena": "12 MiB",
    "MiniLM w8a8, 128 tokens, two threads, two or three other programs, ms": {
        "edgeq, format 1": 208,
        "OpenVINO int8": 36,
        "CTranslate2 int8": 47,
        "ONNX Runtime int8": 63,
    },
    "the same with one thread, ms": {
        "edgeq, format 1": 20,
        "OpenVINO int8": 23,
        "CTranslate2 int8": 29,
        "ONNX Runtime int8": 32,
    },
}
_WORKER = Path(__file__).with_name("either_format.py")
_REPOSITORY = Path(__file__).parents[2]
_COMPILE = """
import json, sys
from pathlib import Path
import edgeq
from edgeq.targets.builtin.target import load_target
checkpoint, recipe, folder, targets = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]
edgeq.compress_model(checkpoint, folder / "checkpoint", recipe=recipe)
edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
for name in targets:
    edgeq.compile_bundle(folder / "onnx", folder / name, target=load_target(name))
"""
_FIRST_RESULT = {
    "1": """
import sys
import edgeq
from edgeq.targets.runtime.text import embed
embed(edgeq.load(sys.argv[1]), [sys.argv[2]])
""",
    "2": "import edgeq, sys; edgeq.load(sys.argv[1]).encode([sys.argv[2]])",
}


def make_bundles(checkout: Path, checkpoint: Path, recipe: str, folder: Path, *, targets: Sequence[str]) -> None:
    """Compresses, exports and compiles a checkpoint with the edgeq of a checkout, unless the bundles are there."""
    if not all((folder / name).is_dir() for name in targets):
        command = [sys.executable, "-P", "-c", _COMPILE, str(checkpoint), recipe, str(folder), *targets]
        subprocess.run(command, check=True, env=_surroundings(checkout))


def _surroundings(checkout: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(checkout)}


@contextmanager
def _worker(checkout: Path, encoder: Path, decoder: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", str(_WORKER), str(encoder), str(decoder), str(threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=_surroundings(checkout), **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.stdin.close()


def _answer(process: subprocess.Popen[str], work: str | None = None) -> Any:
    if work is not None:
        print(work, file=process.stdin, flush=True)
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError(f"{process.args} ended: {process.wait()}")
    return json.loads(line)


def calls_in_turns(
    checkout: Path, bundles: Mapping[str, tuple[Path, Path]], *, threads: int, rounds: int
) -> dict[str, Any]:
    """Times calls of both formats, one process each, which take turns.

    Args:
        checkout: Where the code of format 1 is.
        bundles: The encoder and the decoder of ``"1"`` and of ``"2"``.
        threads: Threads of each process.
        rounds: Turns of each work.

    Returns:
        By work: milliseconds of a call (the median of the medians of all turns), what format 2 takes of the time of
        format 1 (the median over rounds, the smallest and the largest), the same for the processor time of all threads
        together, and whether both gave the same bits.
    """
    with ExitStack() as stack:
        checkouts = {"1": checkout, "2": _REPOSITORY}
        workers = {
            name: stack.enter_context(_worker(checkouts[name], *bundles[name], threads)) for name in checkouts
        }
        works, _ = (_answer(worker) for worker in workers.values())
        taken: dict[str, dict[str, list[float]]] = {work: {"1": [], "2": []} for work in works}
        used: dict[str, dict[str, list[float]]] = {work: {"1": [], "2": []} for work in works}
        digests: dict[str, set[str]] = {work: set() for work in works}
        for turn in range(rounds):
            for work in works:
                for name in ("1", "2") if turn % 2 == 0 else ("2", "1"):
                    answer = _answer(workers[name], work)
                    taken[work][name].append(float(np.median(answer["seconds"])))
                    used[work][name].append(answer["processor_seconds"])
                    digests[work].add(answer["digest"])
    return {
        work: _compared(taken[work])
        | {"processor_time": _compared(used[work]), "same_bits": len(digests[work]) == 1, "rounds": rounds}
        for work in works
    }


def _compared(taken: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    ratios = np.array(taken["2"]) / np.array(taken["1"])
    return {
        "format_1_ms": 1e3 * float(np.median(taken["1"])),
        "format_2_ms": 1e3 * float(np.median(taken["2"])),
        "ratio": float(np.median(ratios)),
        "ratios": [float(ratios.min()), float(ratios.max())],
    }


def starts_in_turns(checkout: Path, bundles: Mapping[str, Path], programs: Mapping[str, Path], *, rounds: int) -> Any:
    """Times processes of both formats from start to end, with one result each, in turns.

    Args:
        checkout: Where the code of format 1 is.
        bundles: The encoder of ``"1"`` and of ``"2"`` for this machine, which Python loads.
        programs: The same for :data:`PROGRAM_TARGET`, with ``edgeq-run``.
        rounds: Starts of each.

    Returns:
        The least milliseconds of Python, and of ``edgeq-run`` on one thread less what calls after the first take, and
        what format 2 takes of the time of format 1.
    """
    checkouts = {"1": checkout, "2": _REPOSITORY}
    commands: dict[str, list[str]] = {}
    for name, bundle in bundles.items():
        start = ["/usr/bin/env", f"PYTHONPATH={checkouts[name]}", sys.executable, "-P", "-c", _FIRST_RESULT[name]]
        commands[f"python {name}"] = [*start, str(bundle), TEXT]
        run = [str(programs[name] / "edgeq-run"), str(programs[name]), "--threads", "1", "--text", TEXT]
        commands[f"edgeq-run {name}"] = run
        commands[f"edgeq-run {name}, repeated"] = [*run, "--repeat", str(REPEATS)]
    least = {name: min(seconds) for name, seconds in in_turns(commands, rounds).items()}
    for name in bundles:
        once, often = least[f"edgeq-run {name}"], least[f"edgeq-run {name}, repeated"]
        least[f"edgeq-run {name}, start"] = once - (often - once) / REPEATS
    works = {"python, first result": "python {}", "edgeq-run, first result less model": "edgeq-run {}, start"}
    return {"rounds": rounds} | {work: _of_least(least, name) for work, name in works.items()}


def _of_least(least: Mapping[str, float], name: str) -> dict[str, float]:
    first, second = (least[name.format(number)] for number in ("1", "2"))
    return {"format_1_ms": 1e3 * first, "format_2_ms": 1e3 * second, "ratio": second / first}


def native_bytes(bundle: Path) -> int:
    """Bytes of a bundle's code, libraries and program."""
    files = [path for path in bundle.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if ".so" in path.name or path.name == "edgeq-run")
