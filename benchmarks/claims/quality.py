"""Quality against stored bytes over the tables of claims: one picture a task, points numbered as in the list below it.

Reads the records in ``benchmarks/claims/results``, and what :mod:`benchmarks.claims.costs` measured, if it did; writes
beside the tables::

    python -m benchmarks.claims.quality
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims.costs import BASELINE, COSTS, TEACHERS
from benchmarks.claims.queue import RECORDS, RESULTS, TABLES
from benchmarks.claims.records import read_records
from benchmarks.factors.calls import STEP, TEXT
from edgeq.files import write_text
from edgeq.formats.json_file import read_json_object
from edgeq.report.plots import SizePoint, quality_plot
from edgeq.sizes import counted

FIGURES = {"sst2": ("accuracy", "accuracy"), "wikitext2": ("test", "perplexity")}
"""Where a run holds its figure, and what that is called, by task."""
WORKS = {"sst2": (TEXT,), "wikitext2": (TEXT, STEP)}
"""Calls that are timed, by task."""
_HEADS = (
    "Of a text, multiply-accumulates and ONNX Runtime's time include the logits of every token, edgeq's time those of "
    "the last."
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A row of a table: the mean figure and bytes of its runs.

    Attributes:
        table: Name of the table.
        label: Name of the row.
        runs: Number of runs.
        value: Their mean figure.
        bytes: Mean bytes of all their tensors.
        names: Names of the runs.
    """

    table: str
    label: str
    runs: int
    value: float
    bytes: float
    names: tuple[str, ...]


def read_points(results: Path) -> dict[str, list[Point]]:
    """Reads the records of every table.

    Returns:
        The rows that hold a finished run, the smallest model first, by task.

    Raises:
        FormatError: If a record is damaged.
    """
    points: dict[str, list[Point]] = {task: [] for task in FIGURES}
    seen: set[tuple[str, ...]] = set()
    for table in (make(1.0) for make in TABLES.values()):
        finished = read_records(results / RECORDS, table.claims)
        for row in table.rows:
            task = row.claims[0].task
            if task not in FIGURES:
                continue
            runs = [run for run in row.results(finished) if FIGURES[task][0] in run]
            if runs:  # what diverged has no figure
                value = statistics.mean(float(run[FIGURES[task][0]]) for run in runs)
                names = tuple(str(run["name"]) for run in runs)
                if names in seen:  # a table may repeat a row of another one
                    continue
                seen.add(names)
                size = statistics.mean(float(run["stored_bytes"]["stored_bytes"]) for run in runs)
                points[task].append(Point(table.name, row.label, len(runs), value, size, names))
    return {task: sorted(found, key=lambda point: point.bytes) for task, found in points.items() if found}


def markdown(task: str, points: Sequence[Point], costs: Mapping[str, Any]) -> str:
    """Returns the list that belongs to a picture.

    Args:
        task: Name of the task.
        points: Its rows.
        costs: What ``costs.json`` holds; empty without it.
    """
    metric = FIGURES[task][1]
    works = WORKS[task]
    lines = [f"# {metric} on {task} against stored bytes", "", f"![{metric} against bytes](quality-{task}.svg)", ""]
    titles = ["", "table", "model", "runs", "MB stored", f"{metric}, mean"]
    titles += ["multiply-accumulates of a text, millions", *(f"ms, {work}" for work in works)]
    lines += ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for number, one in enumerate(points, 1):
        cells = (number, one.table, one.label, one.runs, f"{one.bytes / 1e6:.2f}", f"{one.value:.4g}")
        measured = next((name for name in one.names if name in costs.get("multiply_adds", {})), "")
        lines.append("| " + " | ".join([*map(str, cells), *_costs(measured, works, costs)]) + " |")
    if costs:
        lines += ["", *_teachers(task, works, costs), "", *([_HEADS] if STEP in works else []), _setting(costs)]
    return "\n".join([*lines, "", "```", "python -m benchmarks.claims.quality", "```"]) + "\n"


def _costs(name: str, works: Sequence[str], costs: Mapping[str, Any]) -> list[str]:
    if not name:
        return [""] * (1 + len(works))
    times = costs["milliseconds"][name]
    return [f"{costs['multiply_adds'][name] / 1e6:.0f}", *(f"{times[work]:.2f}" for work in works)]


def _teachers(task: str, works: Sequence[str], costs: Mapping[str, Any]) -> list[str]:
    """Returns a line for each way in which the float model was run."""
    lines = []
    for name in (TEACHERS[task], f"{TEACHERS[task]}, {BASELINE}"):
        times = ", ".join(f"{costs['milliseconds'][name][work]:.2f} ms ({work})" for work in works)
        lines.append(f"- The float model, {BASELINE if name.endswith(BASELINE) else 'edgeq'}: {times}.")
    return lines


def _setting(costs: Mapping[str, Any]) -> str:
    setting = costs["setting"]
    return (
        f"Times of bundles for the machine itself, the fastest of {costs['rounds']} turns: {setting['processor']}, "
        f"{counted(setting['threads'], 'thread')}, edgeq {setting['edgeq']} ({setting['commit']}). "
        "`python -m benchmarks.claims.costs --runs RUNS`"
    )


def picture(task: str, points: Sequence[Point]) -> str:
    """Returns an SVG file."""
    drawn = [
        SizePoint(str(number), point.bytes, point.value)
        for number, point in enumerate(points, 1)
    ]
    inline = quality_plot(drawn, FIGURES[task][1])
    # A file of its own needs the name space that a page gives, and a ground to be read on a dark screen.
    return inline.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background: white" ', 1) + "\n"


def main() -> int:
    """Writes a picture and a list for each task of which something is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and records")
    folder = parser.parse_args().results
    measured = folder / COSTS
    costs = read_json_object(measured) if measured.is_file() else {}
    for task, points in read_points(folder).items():
        write_text(folder / f"quality-{task}.svg", picture(task, points))
        write_text(folder / f"quality-{task}.md", markdown(task, points, costs))
        print(folder / f"quality-{task}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
