"""Writes the tables of the README from the files of results: ``python -m benchmarks.calibration.table``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq.sizes import counted

_HERE = Path(__file__).parent
_QUALITY = ("spearman", "neighbours_kept", "cosine_to_float", "accuracy", "perplexity")
_FILES = {"rows": _HERE / "results.json", "peers": _HERE / "peers" / "results.json"}

Row = Mapping[str, Any]


def main() -> int:
    """Writes the tables."""
    rows = {name: json.loads(file.read_text())["rows"] if file.is_file() else [] for name, file in _FILES.items()}
    page = _HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    for name, found in rows.items():
        text = put(text, name, result_lines(found))
    page.write_text(put(text, "goals", goal_lines(rows["rows"])), encoding="utf-8")
    return 0


def put(page: str, name: str, lines: Sequence[str]) -> str:
    """Returns a page with other lines between the two marks of a name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    return before + begin + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]


def result_lines(rows: Sequence[Row]) -> list[str]:
    """Returns a table with the figures that its rows have, or a sentence where there are no rows."""
    if not rows:
        return ["No rows yet."]
    figures = [name for name in _QUALITY if any(name in row.get("quality", {}) for row in rows)]
    heads = ["row", "bytes", *(name.replace("_", " ") for name in figures), "CPU seconds"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        if "missing" in row:
            cells = ["", *[""] * len(figures), row["missing"].replace("|", "/")]
        else:
            values = [str(row["quality"].get(name, "")) for name in figures]
            cells = [f"{row['bytes']:,}", *values, f"{row['cpu_seconds']:.0f}"]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return [*lines, "", where(rows)]


def goal_lines(rows: Sequence[Row]) -> list[str]:
    """Returns each goal with what was found; one whose row is missing is neither reached nor missed."""
    lines = ["| row | figure | goal | found | |", "|---|---|---|---|---|"]
    found = {row["name"]: row["quality"] for row in rows}
    for name, figure, goal, least in _goals(found):
        value = found.get(name, {}).get(figure)
        sign, shown = "at least" if least else "at most", "" if value is None else f"{value:g}"
        words = figure.replace("_", " ")
        lines.append(f"| {name} | {words} | {sign} {goal:g} | {shown} | {_verdict(value, goal, least=least)} |")
    return lines


def _verdict(value: float | None, goal: float, *, least: bool) -> str:
    if value is None:
        return "no row yet"
    return "reached" if (value >= goal if least else value <= goal) else "MISSED"


def _goals(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, float, bool]]:
    """Returns row, figure, goal, and whether more is better; those over a float value are there once it is."""
    four, two_four, two, one = (f"calibrated-{bits}a8" for bits in ("w4", "w2e4", "w2", "w1"))
    spearman = {four: 0.866, two_four: 0.85, two: 0.84, one: 0.75}
    goals = [(f"minilm/{name}", "spearman", goal, True) for name, goal in spearman.items()]
    for model in ("minilm", "e5"):
        kept = {four: 0.95, two_four: 0.8}
        goals += [(f"{model}/{name}", "neighbours_kept", goal, True) for name, goal in kept.items()]
    if "sst2/float" in found:
        whole, figure = found["sst2/float"]["accuracy"], "accuracy"
        goals += [(f"sst2/{four}", figure, round(whole - 0.002, 4), True)]
        goals += [(f"sst2/{two_four}", figure, round(whole - 0.015, 4), True)]
    if "gpt2/float" in found:
        whole, figure = found["gpt2/float"]["perplexity"], "perplexity"
        goals += [(f"gpt2/{four}", figure, round(1.01 * whole, 3), False)]
        goals += [(f"gpt2/{two_four}", figure, round(1.25 * whole, 3), False)]
    return goals


def where(rows: Sequence[Row]) -> str:
    """Says what the rows were measured on."""
    machines = {(row["machine"]["processor"], row["threads"], row["machine"]["date"][:10]) for row in rows}
    places = "; ".join(f"{name}, {counted(threads, 'thread')}, {date}" for name, threads, date in sorted(machines))
    commits = ", ".join(sorted({row["machine"]["commit"] for row in rows}))
    return f"{places}; commit {commits}."


if __name__ == "__main__":
    raise SystemExit(main())
