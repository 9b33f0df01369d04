"""Writes the tables of the README from ``results.json``: ``python -m benchmarks.arm.table``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.setups import OWN

_HERE = Path(__file__).parent
GOAL = 0.7
_MARKS = ("<!-- results: begin -->\n", "<!-- results: end -->")
_HEAD = (
    "| setup | vector | load | store | branch | other | executed instructions, emulated | estimated cycles "
    "| like float32 | instructions beside the best peer | cycles beside the best peer | goal |"
)

Row = Mapping[str, Any]


def write_tables() -> None:
    """Puts the tables between the marks of the README."""
    page = _HERE / "README.md"
    rows = json.loads((_HERE / "results.json").read_text(encoding="utf-8"))["rows"]
    before, _, rest = page.read_text(encoding="utf-8").partition(_MARKS[0])
    lines = "".join(f"{line}\n" for line in lines_of(rows))
    page.write_text(before + _MARKS[0] + lines + _MARKS[1] + rest.partition(_MARKS[1])[2], encoding="utf-8")


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Returns a table for each work and core, in millions, with edgeq's ratios to the best peer."""
    lines: list[str] = []
    for work, core in dict.fromkeys((row["work"], row["core"]) for row in rows):
        cell = [row for row in rows if (row["work"], row["core"]) == (work, core)]
        lines += ["", f"{work}, {core}, millions:", "", _HEAD, "|" + "---|" * 12]
        lines += [_line(row, cell) for row in sorted(cell, key=_executed)]
    return [*lines, ""]


def _executed(row: Row) -> int:
    return sum(row.get("instructions", {"missing": 2**63}).values())


def _line(row: Row, cell: Sequence[Row]) -> str:
    if "missing" in row:
        return f"| {row['setup']} | {row['missing'].replace('|', '/')} {'| ' * 10}|"
    counts = [*row["instructions"].values(), _executed(row), row["cycles"]]
    figures = " | ".join(f"{count / 1e6:.1f}" for count in counts)
    return f"| {row['setup']} | {figures} | {row['cosine']:.4f} | {' | '.join(_beside_peers(row, cell))} |"


def _beside_peers(row: Row, cell: Sequence[Row]) -> tuple[str, str, str]:
    """The ratios to the least instructions and the least cycles of a peer, and whether both reach the goal."""
    peers = [other for other in cell if "missing" not in other and not other["setup"].startswith(OWN)]
    if not peers or not row["setup"].startswith(OWN):
        return "", "", ""
    instructions = _executed(row) / min(map(_executed, peers))
    cycles = row["cycles"] / min(peer["cycles"] for peer in peers)
    return f"{instructions:.2f}", f"{cycles:.2f}", "met" if max(instructions, cycles) <= GOAL else "missed"


if __name__ == "__main__":
    write_tables()
