"""Two-stage progressive quantization on SST-2: against quantizing everything at once for as many steps."""

from __future__ import annotations

import statistics

from benchmarks.claims.claim import Claim
from benchmarks.claims.rates import search
from benchmarks.claims.students import gap_between, measured, teachers_line
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 0.5
SEARCH_EPOCHS = 0.1
SEEDS = (1, 2, 3)
RATES = (2e-4, 5e-4, 1e-3)
WIDTHS = {"binary": "two-stage-w1a8", "ternary": "two-stage-w2a8"}
WAYS = ("progressive", "at once")
_TRAINING = {"batch_size": 32, "max_length": 64, "bf16": True, "evaluate_every": 250}


def two_stage_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(f"{width}, {way}", _claims(width, way, scale), way) for width in WIDTHS for way in WAYS]
    # Each way is searched where it has the fewest bits.
    searches = {
        way: search(
            _claims("binary", way, scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="accuracy", lower=False
        )
        for way in WAYS
    }
    return Table("two-stage", "Two-stage progressive quantization on SST-2", rows, searches, _render)


def _claims(width: str, way: str, scale: float) -> tuple[Claim, ...]:
    # "At once" is the recipe without its stages: all bits and activations from the first step.
    at_once = {"family": "own", "stage": []} if way == "at once" else {}
    return tuple(
        Claim(
            name=f"sst2-{width}-{way.replace(' ', '-')}-{seed}",
            task="sst2",
            base=WIDTHS[width],
            changes={**at_once, "training": _TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
        )
        for seed in SEEDS
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        teachers_line(table.rows, finished),
        "",
        "| weights, way | accuracy by seed | mean | spread (standard deviation) | learning rate | MiB stored |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = measured(row, finished)
        if not results:
            continue
        values = [100 * result["accuracy"] for result in results]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
        rate = results[0]["changes"]["training"]["learning_rate"]
        stored = results[0]["stored_bytes"]["stored_bytes"] / 2**20
        lines.append(
            f"| {row.label} | {', '.join(f'{value:.2f}' for value in values)} | {statistics.mean(values):.2f} | "
            f"{spread} | {rate:g} | {stored:.2f} |"
        )
    return [*lines, "", *(_verdict(width, table, finished) for width in WIDTHS)]


def _verdict(width: str, table: Table, finished: Finished) -> str:
    by_label = {row.label: row for row in table.rows}
    found = gap_between(*(by_label[f"{width}, {way}"] for way in WAYS), finished)
    if found is None:
        return f"- {width}: not measured yet."
    gap, seeds = found
    if gap.low > 0:
        word = "progressive wins"
    elif gap.high < 0:
        word = "progressive loses"
    else:
        word = "no difference beyond the interval"
    return f"- {width}: progressive - at once: {gap} points over {seeds} seeds: {word}."
