"""Tucker-BERT on SST-2: a seventh and a 48th of the encoder, beside low rank, fewer layers and fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.intervals import verdict
from benchmarks.claims.rates import search
from benchmarks.claims.students import (
    above_bag_of_words,
    bag_of_words_line,
    gap_to_teacher,
    measured,
    share_of_teacher,
    teachers_line,
)
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 1.0
LOWER_RATE = 3e-4
"""Runs as short as those of a search favour high rates: the larger student gets a third of its rate as well."""
LOGITS_RATE = 3e-5
"""The second stage, which begins with what the first has learned, has a lower rate in a row of its own."""
LOWER = f", learning rate {LOWER_RATE:g}"
GENTLE = f"{LOWER}, of the logits' stage {LOGITS_RATE:g}"
SEARCH_EPOCHS = 0.1
SEEDS = (1,)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
_TRAINING = {"batch_size": 32, "max_length": 64, "bf16": True, "evaluate_every": 250}
_BANK = {"rank": 192, "bank": 36}
_STATES = {"name": "states", "share": 0.5, "distill": {"logits": 0.0, "hidden": 1.0, "attention": 1.0, "match": "last"}}
_LOGITS = {"name": "logits", "share": 0.5, "learning_rate": LOGITS_RATE, "distill": {"logits": 1.0}}
_GENTLE = {"stage": [_STATES, _LOGITS]}
"""The recipe's own stages, but for the rate."""
FOLDED = "rank 192 folded, 8-bit weights and activations"
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "IV-36-192": ("tucker-iv-36-192", {}),
    "III-46": ("tucker-iii-32", {"factor": {"rank": 46}}),
    "low rank 25 (II), as many numbers as IV-36-192": ("low-rank-64", {"factor": {"rank": 25}}),
    "3 layers, IV-18-192": (
        "tucker-iv-36-192",
        {"layers": {"keep": [1, 3, 5]}, "factor": {"rank": 192, "bank": 18}},
    ),
    "IV-36-192, ternary cores, 8-bit activations": ("tucker-iv-72-384-w2a8", {"factor": _BANK}),
    FOLDED: ("tucker-iv-72-384-w8a8-folded", {"factor": _BANK}),
}
"""Recipe and changes by the label of the row.

The teacher has 6 blocks of width 384 and 10.6M numbers in them: IV-36-192 is a seventh, III-46 a 48th.
"""
GOALS = {"IV-36-192": (0.98, 'on par (1.00; "1/7")'), "III-46": (0.93, '0.967 ("1/48")')}
"""Share of the teacher's accuracy that is the goal, and what the paper has."""
GENERAL = ", general distillation, 2.5 + 2.5 epochs"
LONG_EPOCHS = 5.0
LONG_SEARCH_EPOCHS = 0.5
LONG_RATES = (1e-4, 3e-4, 1e-3)
LOW_RANK = "low rank 25 (II), as many numbers as IV-36-192"
LONG = ("IV-36-192", "III-46", LOW_RANK)
"""Students that are trained as the paper has it: general distillation on unlabelled text (all of WikiText-2's, one
epoch at 1e-4) before the task, and its first phase at a constant rate."""
AUGMENTED = ", augmented"
_LONG_STAGES: dict[str, Any] = {
    "pretraining": {"epochs": 1.0, "learning_rate": 1e-4},
    "stage": [
        {"name": "states", "share": 0.5, "schedule": "constant",
         "distill": {"logits": 0.0, "hidden": 1.0, "attention": 1.0, "match": "last"}},
        {"name": "logits", "share": 0.5, "distill": {"logits": 1.0}},
    ],
}  # fmt: skip
SEARCHED = ("IV-36-192", "low rank 25 (II), as many numbers as IV-36-192")
"""Those with a search of their own; the others get the learning rate of IV-36-192: they are it with something added, or
(III-46) a smaller bank, which learns nothing in runs as short as those of a search."""


def tucker_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(label, _claims(label, scale), label if label in SEARCHED else SEARCHED[0]) for label in STUDENTS]
    chosen = SEARCHED[0]
    rows.append(Row(chosen + LOWER, _claims(chosen, scale, suffix="-lower-rate"), chosen, LOWER_RATE))
    rows += [
        Row(label + GENTLE, _claims(label, scale, suffix="-gentle", more=_GENTLE), chosen, LOWER_RATE)
        for label in (chosen, FOLDED)
    ]
    rows += [Row(label + GENERAL, _long(label, scale), label + GENERAL) for label in LONG]
    rows += [
        Row(label + GENERAL + AUGMENTED, _long(label, scale, augmented=True), label + GENERAL)
        for label in ("IV-36-192", LOW_RANK)
    ]
    searches = {
        label: search(
            _claims(label, scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="accuracy", lower=False
        )
        for label in SEARCHED
    }
    searches |= {
        label + GENERAL: search(
            _long(label, scale)[0], rates=LONG_RATES, epochs=LONG_SEARCH_EPOCHS * scale, metric="accuracy", lower=False
        )
        for label in LONG
    }
    return Table("tucker", "Tucker-BERT on SST-2", rows, searches, _render)


def _claims(
    label: str, scale: float, *, suffix: str = "", more: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Claim, ...]:
    base, changes = STUDENTS[label]
    return tuple(
        Claim(
            name=f"sst2-tucker{list(STUDENTS).index(label)}{suffix}-{seed}",
            task="sst2",
            base=base,
            changes={**changes, **more, "training": _TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
        )
        for seed in SEEDS
    )


def _long(label: str, scale: float, *, augmented: bool = False) -> tuple[Claim, ...]:
    base, changes = STUDENTS[label]
    # One new sentence for each makes an epoch twice as long: half as many are as many steps.
    more: dict[str, Any] = {}
    if augmented:
        more = {"augment": {"copies": 1}, "stage": [{**one, "augment": True} for one in _LONG_STAGES["stage"]]}
    return tuple(
        Claim(
            name=f"sst2-tucker{list(STUDENTS).index(label)}-general{'-augmented' if augmented else ''}-{seed}",
            task="sst2",
            base=base,
            changes={**changes, **_LONG_STAGES, **more, "training": {**_TRAINING, "shuffle": "run"}},
            epochs=LONG_EPOCHS * scale / (2 if augmented else 1),
            seed=seed,
            pretraining=1.0,
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
        "Rows with *general distillation* are trained as the paper has it, at our length; the others have one epoch on "
        "the task, half for each phase, and their rates were searched in runs of a tenth of an epoch, in which little "
        "is learned: they tell what so short a training comes to. *Augmented* rows have half of the epochs on one new "
        "sentence for each in which a word was replaced.",
        "",
        "| student | numbers stored | MiB stored | accuracy by seed | share of the teacher's [95%] | paper | "
        "our goal | student - teacher, points [95%] | above the bag of words [95%] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = measured(row, finished)
        if not results:
            continue
        values = [result["accuracy"] for result in results]
        share = share_of_teacher(results, finished)
        gap = gap_to_teacher(results, finished)
        # The teacher's accuracy is taken as it is: what varies is the student beside it.
        low, high = (share + (end - gap.points) / (100 * values[0] / share) for end in (gap.low, gap.high))
        paper = reached = ""
        kind = row.label.removesuffix(AUGMENTED).removesuffix(GENERAL).removesuffix(GENTLE).removesuffix(LOWER)
        if kind in GOALS:
            goal, paper = GOALS[kind]
            reached = f"{goal:.2f}: {verdict(low, high, goal)}"
        book = results[0]["stored_bytes"]
        lines.append(
            f"| {row.label} | {book['weights']} | {book['stored_bytes'] / 2**20:.2f} | "
            f"{', '.join(f'{100 * value:.2f}' for value in values)} | {share:.3f} [{low:.3f}, {high:.3f}] | {paper} | "
            f"{reached} | {gap} | {above_bag_of_words(results, finished)} |"
        )
    return lines
