"""The side of an engine: one process, told over its standard input when its turn is.

Runs in the peers' environment, so it needs the standard library and numpy only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], np.ndarray]


def serve(load: Callable[[dict[str, Any]], Call]) -> None:
    """Loads what the first line asks for, then times calls until the input ends.

    Args:
        load: Takes the request (``folder``, ``variant``, ``threads``, ``kind``, ``batch``, ``tokens``, ``limit``) and
            returns what makes one call; its result is the output that is compared.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not come between the answers
    request = json.loads(sys.stdin.readline())
    try:
        call = load(request)
        np.save(Path(request["output"]), np.asarray(call(), np.float32))
    except Exception as error:  # what a peer cannot do is a fact of the run, and reported as one
        print(json.dumps({"missing": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}), file=answers)
        return
    print(json.dumps({"loaded": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_turn(call, json.loads(line)["seconds"])), file=answers, flush=True)


def ids(request: dict[str, Any]) -> np.ndarray:
    """Token ids int64 ``[batch, tokens]``, and one column more for a step: the same for every engine."""
    width = request["tokens"] + (request["kind"] == "step")
    return np.random.default_rng(0).integers(0, request["limit"], (request["batch"], width))


def _turn(call: Call, seconds: float) -> list[float]:
    """Calls for about ``seconds``, at least three times after one that does not count."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
