"""The side of an engine: one process, told over its standard input what to load and when its turn is.

Runs in the peers' environment, so it needs the standard library and numpy only.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

Call = Callable[[], np.ndarray]
Restore = Callable[[], object]
_LONG = 5
_SPECIAL_TOKENS = 4
_STARTED = time.perf_counter()


def nothing() -> None:
    """What there is to restore after a call that changes nothing."""


def serve(
    load: Callable[[dict[str, Any]], tuple[Call, Restore]],
    *,
    make: Callable[[Path, str], None] | None = None,
    packages: tuple[str, ...] = (),
) -> None:
    """Makes files as long as it is asked to, or loads what the first line asks for and times calls.

    Args:
        load: Takes the request (``folder``, ``variant``, ``threads``, ``kind``, ``batch``, ``tokens``, ``new_tokens``,
            ``beams``, ``limit``) and returns what makes one call, whose result is the output that is compared, and what
            brings back the state before it, so that the next call does the same again. That is not timed.
        make: Takes the model's folder and the variant, and makes the files that ``load`` reads. It runs in a process
            of its own, so that the memory of conversion is not counted as memory of running.
        packages: Whose versions are reported.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not come between the answers
    request = json.loads(sys.stdin.readline())
    while request.get("make"):
        say(answers, made(make, request))
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
    try:
        imported = time.perf_counter() - _STARTED
        call, restore = load(request)
        output = np.asarray(call(), np.float32)
        ready = time.perf_counter() - _STARTED
    except Exception as error:  # what a peer cannot do is a fact of the run, and reported as one
        say(answers, reason(error))
        return
    np.save(Path(request["output"]), output)
    versions = {name: importlib.metadata.version(name) for name in packages}
    say(answers, {"load_seconds": ready - imported, "peak_kib": _peak_kib(), "versions": versions})
    for line in sys.stdin:
        say(answers, _turn(call, restore, json.loads(line)["seconds"]))


def ids(request: dict[str, Any]) -> np.ndarray:
    """Token ids int64 ``[batch, tokens]``, and one column more for a step: the same for every engine.

    An encoder-decoder is given no special tokens: some engines would take padding for padding.
    """
    width = request["tokens"] + (request["kind"] == "step")
    least = _SPECIAL_TOKENS if request["kind"] == "rewrite" else 0
    return np.random.default_rng(0).integers(least, request["limit"], (request["batch"], width))


def made(make: Callable[[Path, str], None] | None, request: dict[str, Any]) -> dict[str, Any]:
    """Makes the files that a request asks for, and returns the answer."""
    try:
        if make is not None:
            make(Path(request["folder"]), request["variant"])
    except Exception as error:  # as above
        return reason(error)
    return {"made": True}


def reason(error: Exception) -> dict[str, Any]:
    """Returns the answer of an engine that cannot do what it was asked for."""
    return {"missing": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def say(answers: TextIO, answer: Any) -> None:
    """Sends an answer: a line of JSON."""
    print(json.dumps(answer), file=answers, flush=True)


def _turn(call: Call, restore: Restore, seconds: float) -> list[float]:
    """Calls for about ``seconds``, at least three times unless that takes long, after one that does not count."""
    restore()
    call()
    times: list[float] = []
    while sum(times) < seconds or (len(times) < 3 and sum(times) < _LONG * seconds):
        restore()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _peak_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no line VmHWM")
