"""Writes the tables of the README from the file of results: ``python -m benchmarks.search.table``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.calibration.table import put, where

_HERE = Path(__file__).parent

Row = Mapping[str, Any]


def main() -> int:
    """Writes the tables."""
    file, page = _HERE / "results.json", _HERE / "README.md"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    text = put(page.read_text(encoding="utf-8"), "compared", compared_lines(rows))
    page.write_text(put(text, "promises", promise_lines(rows)), encoding="utf-8")
    return 0


def compared_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the table of searches beside uniform recipes, and whether each reached its goal."""
    found = [row for row in rows if "gain" in row]
    if not found:
        return ["No rows yet."]
    heads = ("row", "budget", "bytes", "method", "search", "uniform", "gain [95%]", "CPU seconds", "")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in found:
        low, value, high = row["gain"]
        cells = (
            row["name"], f"{row['budget']:,}", f"{row['bytes']:,}", row["method"], f"{row['value']:g}",
            f"{row['uniform_value']:g}", f"{value:+g} [{low:+g}, {high:+g}]", f"{row['search_cpu_seconds']:.0f}",
            _verdict(row),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", where(found)]


def _verdict(row: Row) -> str:
    low, _, high = row["gain"]
    is_reached = high >= 0 if row["name"].split("/")[1] == "smaller" else low > 0
    return "reached" if is_reached else "MISSED"


def promise_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the table of promises, and how many of them were kept."""
    found = sorted((row for row in rows if "kept" in row), key=lambda row: int(row["name"].rpartition("/")[2]))
    if not found:
        return ["No rows yet."]
    lines = ["| row | promised loss [95%] | loss on the test split | kept |", "|---|---|---|---|"]
    for row in found:
        low, value, high = row["promised"]
        kept = "yes" if row["kept"] else "no"
        lines.append(f"| {row['name']} | {value:+g} [{low:+g}, {high:+g}] | {row['found']:+g} | {kept} |")
    kept_count = sum(row["kept"] for row in found)
    return [*lines, "", f"{kept_count} of {len(found)} promises were kept. {where(found)}"]


if __name__ == "__main__":
    raise SystemExit(main())
