"""The side of a peer: one process, told over its standard input what to make, and then what to run it on.

Runs in the peers' environment, so it needs the standard library, numpy and the engines of ``benchmarks/speed`` only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "speed" / "engines"))
from turns import reason, say

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Token states or logits, ``[batch, length, ...]``, of ids and mask: int64 ``[batch, length]``."""


class Peer(Protocol):
    """What a tool can do.

    Attributes:
        packages: Whose versions are told.
    """

    packages: tuple[str, ...]

    def prepare(self, folder: Path, *, decoder: bool) -> None:
        """Converts the checkpoint ``folder/float`` to the tool's own float format."""
        ...

    def quantize(self, folder: Path, variant: str, *, texts: list[np.ndarray]) -> int:
        """Makes a variant, and returns the bytes of its weights; texts are ids: int64 ``[1, length]``."""
        ...

    def load(self, folder: Path, variant: str, *, threads: int) -> Run:
        """Returns what runs a variant."""
        ...


def serve(peer: Peer) -> None:
    """Makes what the first line asks for, and runs it on what the others name; both are answered in JSON."""
    # What libraries print, some of it past sys.stdout, must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    try:
        folder, variant = Path(request["folder"]), request["variant"]
        peer.prepare(folder, decoder=request["decoder"])
        before = _used()
        size = peer.quantize(folder, variant, texts=_texts(folder / "calibration.npz"))
        seconds = _used() - before
        run = peer.load(folder, variant, threads=request["threads"])
        versions = {name: importlib.metadata.version(name) for name in peer.packages}
        say(answers, {"bytes": size, "cpu_seconds": round(seconds, 1), "versions": versions})
        for line in sys.stdin:
            _answer(run, json.loads(line))
            say(answers, {})
    except Exception as error:  # what a peer cannot do is a fact of the benchmark, and told as one
        say(answers, reason(error))


def _answer(run: Run, request: dict[str, Any]) -> None:
    with np.load(request["inputs"]) as given:
        np.save(request["output"], run(given["ids"], given["mask"]))


def _texts(file: Path) -> list[np.ndarray]:
    with np.load(file) as given:
        ends = np.cumsum(given["lengths"])[:-1]
        return [text[None] for text in np.split(given["ids"], ends)]


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
