"""The students of SST-2 on STS-B: how alike two sentences are, which their words alone tell far worse than a model."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.intervals import paired_correlation
from benchmarks.claims.measure import teacher_name
from benchmarks.claims.rates import search
from benchmarks.claims.records import BAG_OF_WORDS
from benchmarks.claims.table import Finished, Row, Table
from benchmarks.claims.tucker import LOW_RANK
from benchmarks.claims.tucker import STUDENTS as TUCKER

EPOCHS = 10.0
SEARCH_EPOCHS = 2.0
SEEDS = (1, 2, 3)
RATES = (1e-4, 3e-4, 1e-3)
_TRAINING = {"batch_size": 32, "max_length": 128, "bf16": True, "evaluate_every": 360}
_AT_ONCE = {"family": "own", "stage": []}
STUDENTS: dict[str, tuple[str, dict[str, Any], float]] = {
    "XTC, 6 layers, 2 bits": ("xtc-l12-w2a8", {}, 0.0),
    "XTC, 6 layers, 1 bit": ("xtc-l12-w1a8", {}, 0.0),
    "XTC, 3 layers, 1 bit": ("xtc-l3-w1a8", {}, 0.0),
    "two-stage, binary, progressive": ("two-stage-w1a8", {}, 0.0),
    "two-stage, binary, at once": ("two-stage-w1a8", _AT_ONCE, 0.0),
    **{f"Tucker, {label}": (*TUCKER[label], 1.0) for label in ("IV-36-192", "III-46", LOW_RANK)},
}
"""Recipe, changes, and the part of WikiText-2 that is pre-trained on, by the label of the row."""


def stsb_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(label, _claims(label, scale), label) for label in STUDENTS]
    searches = {
        label: search(
            _claims(label, scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="spearman", lower=False
        )
        for label in STUDENTS
    }
    return Table("stsb", "Students on STS-B", rows, searches, _render)


def _claims(label: str, scale: float) -> tuple[Claim, ...]:
    base, changes, share = STUDENTS[label]
    return tuple(
        Claim(
            name=f"stsb-{list(STUDENTS).index(label)}-{seed}",
            task="stsb",
            base=base,
            changes={**changes, "training": _TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
            pretraining=share,
            since=2,
        )
        for seed in SEEDS
    )


def _render(table: Table, finished: Finished) -> list[str]:
    bag = finished.get(f"{BAG_OF_WORDS}-stsb")
    words = "not measured yet" if bag is None else f"{100 * bag['spearman']:.2f}"
    lines = [
        "100 times Spearman's correlation on the test set (1379 pairs); the best evaluation on the development set "
        f"counts. Bag of words, ridge regression on the words of the pairs of the same training data: {words}.",
        "",
        "| student | by seed | mean | teacher | student - teacher [95%] | above the bag of words [95%] | "
        "learning rate | MiB stored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = [result for result in row.results(finished) if "spearman" in result]
        if not results:
            continue
        values = [100 * result["spearman"] for result in results]
        teachers = [finished[teacher_name(one["teacher"], "stsb")] for one in results]
        rate = results[0]["changes"]["training"]["learning_rate"]
        lines.append(
            f"| {row.label} | {', '.join(f'{value:.2f}' for value in values)} | {statistics.mean(values):.2f} | "
            f"{100 * statistics.mean(one['spearman'] for one in teachers):.2f} | {_gap(results, teachers, bag)} | "
            f"{_gap(results, [bag] * len(results), bag)} | {rate:g} | "
            f"{results[0]['stored_bytes']['stored_bytes'] / 2**20:.2f} |"
        )
    return lines


def _gap(results: list[dict[str, Any]], others: list[Any], bag: dict[str, Any] | None) -> str:
    """Compares pair by pair; the scores to be found stand in the record of the bag of words."""
    if bag is None:
        return ""
    sides = ([one["predictions"] for one in side] for side in (results, others))
    return str(paired_correlation(*sides, bag["targets"]))
