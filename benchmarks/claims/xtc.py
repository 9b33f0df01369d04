"""XTC on SST-2: fewer layers and bits against the teacher, and one long stage against a short one."""

from __future__ import annotations

from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.intervals import verdict
from benchmarks.claims.rates import search
from benchmarks.claims.students import (
    above_bag_of_words,
    bag_of_words_line,
    gap_between,
    gap_to_teacher,
    measured,
    teachers_line,
)
from benchmarks.claims.table import Finished, Row, Table

BUDGETS = {"A": 1 / 6, "B": 1 / 2, "C": 1.0}
"""Epochs; in the ratio of the paper's budgets for large sets, 3, 9 and 18."""
SEARCH_EPOCHS = 0.1
SEEDS = (1, 2, 3)
RATES = (5e-5, 2e-4, 5e-4)
STUDENTS: dict[str, tuple[str, float, str]] = {
    "6 layers, 2 bits": ("xtc-l12-w2a8", 1.0, "MNLI -0.2 of 84.9"),
    "6 layers, 1 bit": ("xtc-l12-w1a8", 2.0, "GLUE 83.44 of 83.95: -0.51"),
    "3 layers, 1 bit": ("xtc-l3-w1a8", 5.0, "6 of 12 layers, MNLI -2.0 of 84.9"),
}
"""Recipes of the students of a 6-layer teacher, the loss in points that is the goal, and what the paper has."""
SHORT = "6 layers, 1 bit"
"""The student that is given the short budgets as well."""
LENGTH = 64
_TRAINING = {"batch_size": 32, "max_length": LENGTH, "bf16": True, "evaluate_every": 250, "warmup": 0.1}
# Ways are compared by their last step: of several stages, fewer evaluations would be there to choose from.
_LAST = {**_TRAINING, "select": "last", "evaluate_every": 1_000_000, "shuffle": "run"}
STARTS = ("skipped", "distilled")
"""A student of 3 layers as it was taken from the teacher, or after a float training of budget C, as in the scripts."""
WAYS = ("one stage", "two stages")
"""1 bit from the first step, or 2 bits (ternary) in the first half of the steps."""
_TWO_STAGES = {
    "family": "own",
    "stage": [{"name": "w2", "bits": 2, "share": 0.5}, {"name": "w1", "share": 0.5}],
}
FLOAT_START = "3 layers in float, distilled, budget C"


def xtc_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [
        Row(f"{student}, budget {budget}", _claims(student, budget, scale), student)
        for budget in reversed(BUDGETS)
        for student in (STUDENTS if budget == "C" else (SHORT,))
    ]
    rows.append(Row(FLOAT_START, _starts(scale), FLOAT_START))
    rows += [
        Row(way_label(start, way, budget), _ways(start, way, budget, scale), "3 layers, 1 bit")
        for budget in ("B", "C")
        for start in STARTS
        for way in WAYS
    ]
    searches = {
        student: search(
            _claims(student, "C", scale)[0],
            rates=RATES,
            epochs=SEARCH_EPOCHS * scale,
            metric="accuracy",
            lower=False,
        )
        for student in STUDENTS
    }
    searches[FLOAT_START] = search(
        _starts(scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="accuracy", lower=False
    )
    return Table("xtc", "XTC on SST-2", rows, searches, _render)


def _claims(student: str, budget: str, scale: float) -> tuple[Claim, ...]:
    base = STUDENTS[student][0]
    layers = "l3" if "-l3-" in base else "l6"
    name = f"sst2-{layers}-{base.split('-')[-1]}-{budget}"
    changes: dict[str, Any] = {"training": _TRAINING}
    return tuple(
        Claim(
            name=f"{name}-{seed}",
            task="sst2",
            base=base,
            changes=changes,
            epochs=BUDGETS[budget] * scale,
            seed=seed,
        )
        for seed in SEEDS
    )


def _starts(scale: float) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"sst2-xtc-l3-float-{seed}",
            task="sst2",
            base="xtc-l3",
            changes={"training": _LAST},
            epochs=BUDGETS["C"] * scale,
            seed=seed,
            since=2,
        )
        for seed in SEEDS
    )


def way_label(start: str, way: str, budget: str) -> str:
    """Returns what a row that compares ways of training is called."""
    return f"3 layers, 1 bit, {start} start, {way}, budget {budget}"


def _ways(start: str, way: str, budget: str, scale: float) -> tuple[Claim, ...]:
    stages = _TWO_STAGES if way == "two stages" else {}
    return tuple(
        Claim(
            name=f"sst2-xtc-{start}-{way.replace(' ', '-')}-{budget}-{first.seed}",
            task="sst2",
            base="xtc-l3-w1a8",
            changes={**stages, "training": {**_LAST, **({"across_stages": "continue"} if stages else {})}},
            epochs=BUDGETS[budget] * scale,
            seed=first.seed,
            start_from=first.name if start == "distilled" else "",
            since=2,
        )
        for first in _starts(scale)
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        teachers_line(table.rows, finished),
        "",
        bag_of_words_line(finished),
        "",
        "| student | accuracy by seed | mean | student - teacher, points [95%] | above the bag of words [95%] | "
        "paper | our goal | MiB stored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = measured(row, finished)
        if not results:
            continue
        values = [100 * result["accuracy"] for result in results]
        gap = gap_to_teacher(results, finished)
        paper = reached = ""
        if row.label in {f"{student}, budget C" for student in STUDENTS}:
            _, goal, paper = STUDENTS[str(row.search)]
            reached = f"-{goal:g}: {verdict(gap.low, gap.high, -goal)}"
        stored = results[0]["stored_bytes"]["stored_bytes"] / 2**20
        lines.append(
            f"| {row.label} | {', '.join(f'{value:.2f}' for value in values)} | {sum(values) / len(values):.2f} | "
            f"{gap} | {above_bag_of_words(results, finished)} | {paper} | {reached} | {stored:.2f} |"
        )
    return [*lines, "", *_budgets(table, finished), *_compared_ways(table, finished)]


def _budgets(table: Table, finished: Finished) -> list[str]:
    """Compares the long stage with the short ones on the seeds that both have."""
    lines = []
    by_label = {row.label: row for row in table.rows}
    for short in ("A", "B"):
        found = gap_between(*(by_label[f"{SHORT}, budget {budget}"] for budget in ("C", short)), finished)
        if found is not None:
            gap, seeds = found
            lines.append(f"- {SHORT}: budget C - budget {short}: {gap} points ({seeds} seeds).")
    return lines


def _compared_ways(table: Table, finished: Finished) -> list[str]:
    """Compares one stage with two, at equal steps and from the same start."""
    lines = []
    by_label = {row.label: row for row in table.rows}
    for budget in ("B", "C"):
        for start in STARTS:
            sides = [by_label[way_label(start, way, budget)] for way in WAYS]
            found = gap_between(sides[0], sides[1], finished)
            if found is not None:
                gap, seeds = found
                lines.append(f"- {start} start, budget {budget}: one stage - two stages: {gap} points ({seeds} seeds).")
    return lines
