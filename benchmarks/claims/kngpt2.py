"""KnGPT2 on WikiText-2, from a teacher at its plateau: equal losses, own rates, light pre-training, three seeds."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.language_models import over
from benchmarks.claims.measure import CONTEXT, PLATEAU_TEACHER
from benchmarks.claims.rates import search
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 0.125
LONGER = 4
SEARCH_EPOCHS = 0.05
SEEDS = (1, 2, 3)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
LONG = f", {LONGER} times the steps"
BASELINE = "layer-drop"
"""As DistilGPT2: every second block."""
HALVED = "Kronecker, table and head halved"
WHOLE = "Kronecker, table and head whole"
ILKD = ", ILKD as well"
_TRAINING = {"batch_size": 8, "max_length": CONTEXT, "bf16": True, "evaluate_every": 1_000_000, "select": "last"}
_SIMPLE = {
    "distill": {"logits": 1.0, "labels": 1.0, "hidden": 0.0, "attention": 0.0, "embeddings": 0.0},
}
_WITH_ILKD = {
    "distill": {
        "logits": 1.0,
        "labels": 1.0,
        "hidden": 0.03,
        "attention": 1.0,
        "attention_as": "probabilities",
        "embeddings": 1.0,
    },
}
_FACTORS: dict[str, dict[str, Any]] = {
    HALVED: {"factor": {"blocks": [1, 2, 3, 5]}},
    WHOLE: {"factor": {"blocks": "all", "embedding_factor": 1}},
}
PRETRAINED = {share: f", pre-trained on {share:.0%} of the text" for share in (0.1, 1.0)}
STUDENTS: dict[str, tuple[str, dict[str, Any], float]] = {
    BASELINE: ("layer-drop", _SIMPLE, 0.0),
    BASELINE + ILKD: ("layer-drop", _WITH_ILKD, 0.0),
    HALVED: ("kngpt2", {**_FACTORS[HALVED], **_SIMPLE}, 0.0),
    HALVED + ILKD: ("kngpt2", {**_FACTORS[HALVED], **_WITH_ILKD}, 0.0),
    WHOLE: ("kngpt2", {**_FACTORS[WHOLE], **_SIMPLE}, 0.0),
    WHOLE + ILKD: ("kngpt2", {**_FACTORS[WHOLE], **_WITH_ILKD}, 0.0),
    BASELINE + PRETRAINED[0.1]: ("layer-drop", _SIMPLE, 0.1),
    HALVED + PRETRAINED[0.1]: ("kngpt2", {**_FACTORS[HALVED], **_WITH_ILKD}, 0.1),
    BASELINE + PRETRAINED[1.0]: ("layer-drop", _SIMPLE, 1.0),
    HALVED + PRETRAINED[1.0]: ("kngpt2", {**_FACTORS[HALVED], **_WITH_ILKD}, 1.0),
}
"""Recipe, changes, and the part of the text that is pre-trained on, by the label of the row.

A head of its own beside a halved table, as released copies of KnGPT2 have it, cannot be made with these recipes.
"""
SEARCHED = tuple(label for label, (_, _, share) in STUDENTS.items() if not share)


def kngpt2_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(label, _claims(label, scale), _search_of(label)) for label in STUDENTS]
    rows += [Row(label + LONG, _claims(label, LONGER * scale, suffix="-long"), label) for label in SEARCHED]
    searches = {
        label: search(_claims(label, scale)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="valid", lower=True)
        for label in SEARCHED
    }
    return Table("kngpt2", "KnGPT2 on WikiText-2", rows, searches, _render)


def _search_of(label: str) -> str:
    """Pre-trained students take the rate of those with their losses that are not."""
    if label in SEARCHED:
        return label
    return BASELINE if label.startswith(BASELINE) else HALVED + ILKD


def _claims(label: str, scale: float, *, suffix: str = "") -> tuple[Claim, ...]:
    base, changes, share = STUDENTS[label]
    return tuple(
        Claim(
            name=f"gpt2-kngpt2-{list(STUDENTS).index(label)}{suffix}-{seed}",
            task="wikitext2",
            base=base,
            changes={**changes, "training": _TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
            source=PLATEAU_TEACHER,
            pretraining=share,
            since=2,
        )
        for seed in SEEDS
    )


def baseline_of(label: str) -> str:
    """Returns the layer-drop row with as many steps and the same pre-training as a row."""
    return BASELINE + next((end for end in (LONG, *PRETRAINED.values()) if label.endswith(end)), "")


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        "Perplexity per token, windows of 256 tokens; students of one teacher, which was trained until validation "
        "stopped improving. All have the labels and the teacher's logits in their loss; *ILKD as well* adds "
        "embeddings, hidden states and attention. Pre-training is one epoch on a part of the same text before the run, "
        "with the same losses; a row is compared with layer-drop that has as many steps.",
        "",
        "| student | numbers stored | MiB stored | test, by seed | mean | over layer-drop [95%] | learning rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = [result for result in row.results(finished) if "test" in result]
        if not results:
            continue
        tests = [result["test"] for result in results]
        other = baseline_of(row.label)
        ratio = None if other == row.label else over(row.label, other, table, finished)
        rate = results[0]["changes"]["training"]["learning_rate"]
        book = results[0]["stored_bytes"]
        lines.append(
            f"| {row.label} | {book['weights']} | {book['stored_bytes'] / 2**20:.2f} | "
            f"{', '.join(f'{test:.2f}' for test in tests)} | {statistics.mean(tests):.2f} | {ratio or ''} | {rate:g} |"
        )
    paper = "- Paper: KnGPT2 20.5 against DistilGPT2 23.7 on WikiText-103, 0.865 of it, both of about 83M numbers."
    return [*lines, "", paper]
