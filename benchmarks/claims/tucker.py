"""Tucker-BERT on SST-2: a seventh and a 48th of the encoder, beside low rank, fewer layers and fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.rates import search
from benchmarks.claims.students import gap_to_teacher, measured, share_of_teacher, teachers_line
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
AIMS = {"IV-36-192": 0.98, "III-46": 0.93}
"""Share of the teacher's accuracy that is aimed at."""
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
    searches = {
        label: search(
            _claims(label, scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="accuracy", lower=False
        )
        for label in SEARCHED
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


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        teachers_line(table.rows, finished),
        "",
        "| student | numbers stored | MiB stored | accuracy by seed | share of the teacher's | aim | "
        "student - teacher, points [95%] |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = measured(row, finished)
        if not results:
            continue
        values = [result["accuracy"] for result in results]
        share = share_of_teacher(results, finished)
        aim = AIMS.get(row.label.removesuffix(GENTLE).removesuffix(LOWER))
        goal = "" if aim is None else f"{aim:.2f}: {'met' if share >= aim else 'missed'}"
        book = results[0]["stored_bytes"]
        gap = gap_to_teacher(results, finished)
        lines.append(
            f"| {row.label} | {book['weights']} | {book['stored_bytes'] / 2**20:.2f} | "
            f"{', '.join(f'{100 * value:.2f}' for value in values)} | {share:.3f} | {goal} | {gap} |"
        )
    return lines
