"""What edgeq wants to stay below: memory, seconds to the first result, and what compiling takes."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.speed import results
from benchmarks.speed.footprint import COMPILED, STARTS
from benchmarks.speed.setups import OWN

_KIB_IN_MIB, _KIB_IN_GIB = 1024, 1024**2
_RUNNER_MIB = 33 + 36 + 12
"""GPT-2 small at 2 bits, its cache of 1024 tokens in float16, and a dozen for program and activations."""
_SHARE_OF_MEMORY, _SHARE_OF_LOADING = 1 / 2, 1 / 3
_COMPILE_SECONDS, _COMPILE_GIB = 90, 3
_TWO_BITS, _ONNX_RUNTIME = "ONNX Runtime MatMulNBits 2", "ONNX Runtime"


@dataclasses.dataclass(frozen=True)
class Limit:
    """One wish and what came of it.

    Attributes:
        what: Reading in words.
        most: It should be at most this.
        found: It is this.
        unit: Unit of both.
    """

    what: str
    most: float
    found: float
    unit: str


def limits(entry: dict[str, Any]) -> list[Limit]:
    """Returns the limits of one entry of results of kind ``start`` or ``compile``; none of another."""
    rows = {row["name"]: row for row in entry["engines"] if not row["missing"]}
    if entry["kind"] == results.START and entry["name"] == STARTS[0].name:
        return _memory(rows) + _loading(rows)
    if entry["kind"] == results.START:
        return _loading(rows)
    if entry["kind"] == results.COMPILE and entry["name"] == COMPILED[0][0]:
        (row,) = rows.values()
        return [
            Limit(row["name"], _COMPILE_SECONDS, row["process_seconds"], "s"),
            Limit(f"{row['name']}, peak memory", _COMPILE_GIB, row["peak_kib"] / _KIB_IN_GIB, "GiB"),
        ]
    return []


def _memory(rows: dict[str, dict[str, Any]]) -> list[Limit]:
    found = []
    for name, row in rows.items():
        peak = row["peak_kib"] / _KIB_IN_MIB
        if name.startswith(OWN) and "C runner" in name:
            found.append(Limit(f"peak memory of {name}", _RUNNER_MIB, peak, "MiB"))
        elif name.startswith(OWN) and _TWO_BITS in rows:
            most = rows[_TWO_BITS]["peak_kib"] / _KIB_IN_MIB * _SHARE_OF_MEMORY
            found.append(Limit(f"peak memory of {name} (half of {_TWO_BITS})", most, peak, "MiB"))
    return found


def _loading(rows: dict[str, dict[str, Any]]) -> list[Limit]:
    """Beside the fastest variant of ONNX Runtime."""
    theirs = [row["load_seconds"] for name, row in rows.items() if name.startswith(_ONNX_RUNTIME)]
    return [
        Limit(f"load and first call of {name} (a third of {_ONNX_RUNTIME}'s)", min(theirs) * _SHARE_OF_LOADING,
              row["load_seconds"], "s")
        for name, row in rows.items() if theirs and name.startswith(OWN) and row["load_seconds"]
    ]  # fmt: skip
