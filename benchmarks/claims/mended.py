"""What two repairs change, on the teacher of the first series: the scale of Kronecker factors, the rates of quantizers.

Rows of the first series stand beside runs of the same recipe, data and steps by the code as it is.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from benchmarks.claims.claim import REVISION, Claim
from benchmarks.claims.first import kngpt2 as first_kngpt2
from benchmarks.claims.first import quantgpt as first_quantgpt
from benchmarks.claims.first.kngpt2 import BASELINE, EPOCHS, SEARCH_EPOCHS, SEEDS, SMALLER, WHOLE_TABLE
from benchmarks.claims.rates import Rates, search
from benchmarks.claims.table import Finished, Row, Table

BEFORE = "before: "
EQUAL = "KnGPT2, 4 of 6 blocks, losses of layer-drop"
WITH_LOGITS = f"{SMALLER}, logits as well"
RATES = (5e-4, 1e-3, 2e-3)
STARTS: dict[str, Any] = {"least error": "error", "2.0 mean|w|": 2.0}
"""Where learned scales start; 2.0 is LSQ's own start at 2 bits, and QuantGPT's own is the least error."""
QUANTIZER_RATES = (4e-4, 1e-2)
"""Relative to the size of what is learned; the first is about what QuantGPT's factor had before."""
METHODS = {"QuantGPT": "module-scaling", "LSQ with three levels": "lsq-symmetric"}
_WEIGHT_RATE = 1e-3
"""The best of the first series for both methods."""
_LOSSES = {"distill": {"logits": 1.0, "labels": 1.0, "hidden": 0.0, "attention": 0.0, "embeddings": 0.0}}
_KRONECKER: dict[str, dict[str, Any]] = {
    EQUAL: {"factor": {"blocks": [1, 2, 3, 5]}, **_LOSSES},
    WITH_LOGITS: first_kngpt2.STUDENTS[WITH_LOGITS][1],
    WHOLE_TABLE: first_kngpt2.STUDENTS[WHOLE_TABLE][1],
}


def mended_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    first = {row.label: row for make in (first_kngpt2.kngpt2_table, first_quantgpt.quantgpt_table)
             for row in make(scale).rows}  # fmt: skip
    # Training a student of fewer layers is the same in both revisions.
    baseline = tuple(dataclasses.replace(claim, until=REVISION) for claim in first[BASELINE].claims)
    rows = [
        Row(BASELINE, baseline, BASELINE),
        *(_before(first[label]) for label in (SMALLER, WITH_LOGITS, WHOLE_TABLE)),
    ]
    rows += [
        Row(label, _kronecker(label, scale, SEEDS if label == EQUAL else SEEDS[:1]), EQUAL) for label in _KRONECKER
    ]
    rows += [_before(first[label]) for label in ("QuantGPT 2-2-8", "LSQ 2-2-8 with three levels")]
    for rate in QUANTIZER_RATES:
        for start in STARTS:
            rows += [
                Row(_label(method, start, rate), (_quantized(method, start, rate, scale),), None,
                    rates=Rates(_WEIGHT_RATE, rate))
                for method in METHODS
            ]  # fmt: skip
    searches = {
        BASELINE: first_kngpt2.kngpt2_table(scale).searches[BASELINE],
        EQUAL: search(
            _kronecker(EQUAL, scale, SEEDS)[0], rates=RATES, epochs=SEARCH_EPOCHS * scale, metric="valid", lower=True
        ),
    }
    return Table("mended", "Kronecker scale and quantizer rates, before and after", rows, searches, _render)


def _before(row: Row) -> Row:
    return dataclasses.replace(row, label=BEFORE + row.label, search=None)


def _label(method: str, start: str, rate: float) -> str:
    return f"{method} 2-2-8, start {start}, relative rate {rate:g}"


def _kronecker(label: str, scale: float, seeds: tuple[int, ...]) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"mended-kn{list(_KRONECKER).index(label)}-{seed}",
            task="wikitext2",
            base="kngpt2",
            changes={**_KRONECKER[label], "training": first_kngpt2.TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
            since=2,
        )
        for seed in seeds
    )


def _quantized(method: str, start: str, rate: float, scale: float) -> Claim:
    settings = {"quantizer": METHODS[method], "start": STARTS[start]}
    return Claim(
        name=f"mended-{METHODS[method]}-{STARTS[start]}-{rate:g}",
        task="wikitext2",
        base="quantgpt-w2e2a8",
        changes={"weights": settings, "embeddings": settings, "training": first_quantgpt.TRAINING},
        epochs=first_quantgpt.EPOCHS * scale,
        seed=first_quantgpt.SEED,
        since=2,
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        "Perplexity per token, windows of 256 tokens, 158 steps. All rows are of the teacher of the first series (test "
        "115.3): the table tells what two repairs of the code change, and nothing about the papers. Rows that begin "
        "with *before* are records of revision 1 of the code; the others are of revision 2, but for layer-drop, which "
        "is the same run in both.",
        "",
        "| student | test, by seed | mean | learning rates | revision |",
        "|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = [result for result in row.results(finished) if "test" in result]
        if results:
            tests = [result["test"] for result in results]
            training = results[0]["changes"]["training"]
            rates = f"{training['learning_rate']:g}, quantizers {training['quantizer_learning_rate']:g}"
            revisions = ", ".join(sorted({str(result.get("revision", 1)) for result in results}))
            lines.append(
                f"| {row.label} | {', '.join(f'{test:.2f}' for test in tests)} | {statistics.mean(tests):.2f} | "
                f"{rates} | {revisions} |"
            )
        lines += [
            f"| {row.label} | failed: {one['failed']} | | | |" for one in row.results(finished) if "failed" in one
        ]
    return lines
