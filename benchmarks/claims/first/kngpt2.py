"""KnGPT2 on WikiText-2, first series: closed, for the code does these runs no longer as they were done.

Kronecker factors against dropped layers of the same size, with and without ILKD.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.first.series import FIRST_SERIES
from benchmarks.claims.measure import CONTEXT
from benchmarks.claims.rates import search
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 0.125
SEARCH_EPOCHS = 0.05
SEEDS = (1, 2, 3)
RATES = (2e-4, 5e-4, 1e-3)
LONGER = 4
"""How many times as many steps the last two rows get: what factors gain by more training."""
LONG = f", {LONGER} times the steps"
# No choice of the best step: all runs end at their last one.
TRAINING = {"batch_size": 8, "max_length": CONTEXT, "bf16": True, "evaluate_every": 1_000_000, "select": "last"}
BASELINE = "layer-drop"
PAPER = "KnGPT2"
SMALLER = "KnGPT2, 4 of 6 blocks"
"""The teacher has 6 blocks: factors in 3 of them leave a little more than dropping 3 does, in 4 of them less."""
WHOLE_TABLE = "Kronecker factors in all blocks, table whole, logits as well"
_LABELS_ONLY = {"distill": {"labels": 1.0, "logits": 0.0, "hidden": 0.0, "attention": 0.0, "embeddings": 0.0}}
_FOUR_BLOCKS = {"factor": {"blocks": [1, 2, 3, 5]}}
_LOGITS = {"distill": {"logits": 1.0}}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    BASELINE: ("layer-drop", {}),
    PAPER: ("kngpt2", {}),
    SMALLER: ("kngpt2", _FOUR_BLOCKS),
    f"{SMALLER}, logits as well": ("kngpt2", {**_FOUR_BLOCKS, **_LOGITS}),
    f"{SMALLER}, hidden states weighted as the labels": ("kngpt2", {**_FOUR_BLOCKS, "distill": {"hidden": 1.0}}),
    f"{SMALLER}, no distillation": ("kngpt2", {**_FOUR_BLOCKS, **_LABELS_ONLY}),
    WHOLE_TABLE: ("kngpt2", {"factor": {"blocks": "all", "embedding_factor": 1}, **_LOGITS}),
    "KnGPT2 with 4-bit factors, 8-bit activations, at once": ("kngpt2-w4a8", {}),
    "the same, factors first, then bits": ("kngpt2-then-w4a8", {}),
}
"""Recipe and changes by the label of the row."""
COMPARED = (BASELINE, SMALLER)
"""What the goal is about: all seeds; the others get the first."""


def kngpt2_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [
        Row(label, _claims(label, scale, SEEDS if label in COMPARED else SEEDS[:1]), _search_of(label))
        for label in STUDENTS
    ]
    rows += [
        Row(label + LONG, _claims(label, LONGER * scale, SEEDS[:1], suffix="-long"), _search_of(label))
        for label in (BASELINE, WHOLE_TABLE)
    ]
    searches = {
        label: search(
            _claims(label, scale, SEEDS)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="valid", lower=True
        )
        for label in (BASELINE, PAPER)
    }
    return Table("first-kngpt2", "KnGPT2 on WikiText-2", rows, searches, _render)


def _search_of(label: str) -> str:
    """Factors are searched once: the variants differ in less than that."""
    return BASELINE if label == BASELINE else PAPER


def _claims(label: str, scale: float, seeds: tuple[int, ...], *, suffix: str = "") -> tuple[Claim, ...]:
    base, changes = STUDENTS[label]
    name = f"wikitext2-kn{list(STUDENTS).index(label)}-{base}{suffix}"
    return tuple(
        Claim(
            name=f"{name}-{seed}",
            task="wikitext2",
            base=base,
            changes={**changes, "training": TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
            until=1,
        )
        for seed in seeds
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        FIRST_SERIES + " The singular value was shared out evenly between Kronecker factors in these runs, so that the "
        "table's rate was about ten times what it says here; and layer-drop had the logits in its loss, KnGPT2 not "
        "unless the row says so.",
        "",
        "Perplexity per token, windows of 256 tokens; every student is made of the same teacher and trained for as "
        "many steps.",
        "",
        "| student | numbers stored | MiB stored | test, by seed | mean | learning rate |",
        "|---|---|---|---|---|---|",
    ]
    means: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for row in table.rows:
        results = [result for result in row.results(finished) if "test" in result]
        if not results:
            continue
        tests = [result["test"] for result in results]
        means[row.label], sizes[row.label] = statistics.mean(tests), results[0]["stored_bytes"]["weights"]
        rate = results[0]["changes"]["training"]["learning_rate"]
        lines.append(
            f"| {row.label} | {sizes[row.label]} | {results[0]['stored_bytes']['stored_bytes'] / 2**20:.2f} | "
            f"{', '.join(f'{test:.2f}' for test in tests)} | {means[row.label]:.2f} | {rate:g} |"
        )
    if BASELINE in means and SMALLER in means:
        word = "met" if means[SMALLER] < means[BASELINE] and sizes[SMALLER] <= sizes[BASELINE] else "missed"
        lines += ["", f"- Aim: lower perplexity than {BASELINE} with no more numbers: {word}."]
    return lines
