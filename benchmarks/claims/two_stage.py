"""Two-stage progressive quantization on SST-2: against quantizing everything at once for as many steps."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.rates import search
from benchmarks.claims.students import (
    above_bag_of_words,
    bag_of_words_line,
    gap_between,
    measured,
    teachers_line,
)
from benchmarks.claims.table import Finished, Row, Table
from edgeq.recipes import load_recipe

EPOCHS = 0.5
SEARCH_EPOCHS = 0.1
SEEDS = (1, 2, 3)
RATES = (2e-4, 5e-4, 1e-3)
WIDTHS = {"binary": "two-stage-w1a8", "ternary": "two-stage-w2a8"}
WAYS = ("progressive", "at once")
_TRAINING = {"batch_size": 32, "max_length": 64, "bf16": True, "evaluate_every": 250}
# The same comparison again: last steps, one shuffling, one warm-up and one optimizer for all stages.
_ONE_RUN = {
    "select": "last",
    "evaluate_every": 1_000_000,
    "shuffle": "run",
    "across_stages": "continue",
}
_AUGMENT = {"augment": {"copies": 1}}
"""One new sentence for each: an epoch is twice as long, so half of the epochs are as many steps."""
_SHORTER: dict[str, list[dict[str, Any]]] = {
    "binary": [
        {"name": "w2", "bits": 2, "activations": False, "share": 0.4},
        {"name": "w1", "activations": False, "share": 0.3},
        {"name": "w1a8", "share": 0.3},
    ],
    "ternary": [{"name": "w2", "activations": False, "share": 0.7}, {"name": "w2a8", "share": 0.3}],
}
"""Without 8 and 4 bits, from which a trained model loses little anyway."""
FINER = ("progressive", "progressive, from ternary", "ternary, then all at once", "at once")
"""Ways of the second comparison: the recipe's bits; its bits from 2 on; 2 bits and then the end, both with 8-bit
activations, as BinaryBERT goes but without splitting weights; and BWN or TWN from the first step, as XTC goes."""


def two_stage_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(f"{width}, {way}", _claims(width, way, scale), way) for width in WIDTHS for way in WAYS]
    rows += [
        Row(finer_label(width, way, augmented=augmented), _finer(width, way, scale, augmented=augmented),
            "at once" if way == "at once" else "progressive")
        for augmented in (False, True)
        for width in WIDTHS
        for way in FINER
        if width == "binary" or way != "ternary, then all at once"
    ]  # fmt: skip
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


def finer_label(width: str, way: str, *, augmented: bool) -> str:
    """Returns what a row of the second comparison is called."""
    return f"{width}, {way}, one run" + (", augmented" if augmented else "")


def _finer(width: str, way: str, scale: float, *, augmented: bool) -> tuple[Claim, ...]:
    base = WIDTHS[width]
    stages = {
        "progressive": [
            stage.model_dump(exclude_none=True, exclude_defaults=True) for stage in load_recipe(base).stage
        ],
        "progressive, from ternary": _SHORTER[width],
        "ternary, then all at once": [{"name": "w2", "bits": 2, "share": 0.5}, {"name": "w1", "share": 0.5}],
        "at once": [{"name": "all", "share": 1.0}],
    }[way]
    if augmented:
        stages = [{**stage, "augment": True} for stage in stages]
    family = "two-stage" if way.startswith("progressive") else "own"
    more = _AUGMENT if augmented else {}
    name = f"sst2-{width}-{way.replace(',', '').replace(' ', '-')}-one-run{'-augmented' if augmented else ''}"
    return tuple(
        Claim(
            name=f"{name}-{seed}",
            task="sst2",
            base=base,
            changes={"family": family, "stage": stages, **more, "training": {**_TRAINING, **_ONE_RUN}},
            epochs=EPOCHS * scale / (2 if augmented else 1),
            seed=seed,
            since=2,
        )
        for seed in SEEDS
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        teachers_line(table.rows, finished),
        "",
        bag_of_words_line(finished),
        "",
        "*At once* is quantizing all bits and activations from the first step and distilling as long: a baseline of "
        "XTC's kind, which the paper does not compare with. Rows without *one run* pick the best evaluation of each "
        "stage, shuffle anew and warm up in each: progressive reads less of the data (41% against 50%) and has fewer "
        "evaluations to choose from in its last stage. Rows with *one run* do not differ in that. Augmented rows "
        "have half of the epochs on one new sentence for each in which a word was replaced: as many steps as each "
        "other, and a few less than the rows without.",
        "",
        "| weights, way | accuracy by seed | mean | spread (standard deviation) | above the bag of words [95%] | "
        "learning rate | MiB stored |",
        "|---|---|---|---|---|---|---|",
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
            f"{spread} | {above_bag_of_words(results, finished)} | {rate:g} | {stored:.2f} |"
        )
    verdicts = [_verdict(width, tuple(f"{width}, {way}" for way in WAYS), table, finished) for width in WIDTHS]
    for width in WIDTHS:
        for augmented in (False, True):
            labels = [finer_label(width, way, augmented=augmented) for way in FINER]
            sides = [(labels[0], other) for other in labels[1:] if any(row.label == other for row in table.rows)]
            verdicts += [_verdict(f"{first} against {other}", (first, other), table, finished, quiet=True)
                         for first, other in sides]  # fmt: skip
    return [*lines, "", *filter(None, verdicts)]


def _verdict(what: str, labels: tuple[str, ...], table: Table, finished: Finished, *, quiet: bool = False) -> str:
    by_label = {row.label: row for row in table.rows}
    found = gap_between(by_label[labels[0]], by_label[labels[1]], finished)
    if found is None:
        return "" if quiet else f"- {what}: not measured yet."
    gap, seeds = found
    if gap.low > 0:
        word = "progressive wins"
    elif gap.high < 0:
        word = "progressive loses"
    else:
        word = "no difference beyond the interval"
    between = "" if quiet else " progressive - at once:"
    return f"- {what}:{between} {gap} points over {seeds} seeds: {word}."
