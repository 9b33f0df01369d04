"""XTC on SST-2: fewer layers and bits against the teacher, and one long stage against a short one."""

from __future__ import annotations

from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.rates import search
from benchmarks.claims.students import gap_between, gap_to_teacher, measured, teachers_line
from benchmarks.claims.table import Finished, Row, Table

BUDGETS = {"A": 1 / 6, "B": 1 / 2, "C": 1.0}
"""Epochs; in the ratio of the paper's budgets for large sets, 3, 9 and 18."""
SEARCH_EPOCHS = 0.1
SEEDS = (1, 2, 3)
RATES = (5e-5, 2e-4, 5e-4)
STUDENTS: dict[str, tuple[str, float]] = {
    "6 layers, 2 bits": ("xtc-l12-w2a8", 1.0),
    "6 layers, 1 bit": ("xtc-l12-w1a8", 2.0),
    "3 layers, 1 bit": ("xtc-l3-w1a8", 5.0),
}
"""Recipes of the students of a 6-layer teacher, and the loss in points that is aimed at."""
SHORT = "6 layers, 1 bit"
"""The student that is given the short budgets as well."""
LENGTH = 64
_TRAINING = {"batch_size": 32, "max_length": LENGTH, "bf16": True, "evaluate_every": 250, "warmup": 0.1}


def xtc_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [
        Row(f"{student}, budget {budget}", _claims(student, budget, scale), student)
        for budget in reversed(BUDGETS)
        for student in (STUDENTS if budget == "C" else (SHORT,))
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


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        teachers_line(table.rows, finished),
        "",
        "| student | accuracy by seed | mean | student - teacher, points [95%] | aim | MiB stored |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = measured(row, finished)
        if not results:
            continue
        values = [100 * result["accuracy"] for result in results]
        gap = gap_to_teacher(results, finished)
        aim = STUDENTS[row.search][1]
        verdict = "met" if gap.points >= -aim else "missed"
        goal = f"-{aim:g}: {verdict}" if row.label.endswith("C") else ""
        stored = results[0]["stored_bytes"]["stored_bytes"] / 2**20
        lines.append(
            f"| {row.label} | {', '.join(f'{value:.2f}' for value in values)} | {sum(values) / len(values):.2f} | "
            f"{gap} | {goal} | {stored:.2f} |"
        )
    return [*lines, "", *_budgets(table, finished)]


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
