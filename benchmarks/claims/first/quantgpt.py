"""QuantGPT on WikiText-2, first series: closed, for the code does these runs no longer as they were done.

Perplexity at 8, 4 and 2 bits against PACT, LSQ and LAQ, and against itself with less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.first.series import FIRST_SERIES
from benchmarks.claims.measure import CONTEXT
from benchmarks.claims.rates import search
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 0.125
SEARCH_EPOCHS = 0.05
SEED = 1
RATES = (5e-4, 1e-3, 2e-3, 5e-3)
CONTROL_RATES = (5e-5, 1e-4, 2e-4, 5e-4)
"""What is trained already wants less than what was just rounded."""
LONGER = 4
"""How many times as many steps the last rows get: how the gap to the control goes on closing."""
CONTROL = "float control"
LONG = f", {LONGER} times the steps"
METHODS = {"QuantGPT": "", "PACT": "-pact", "LSQ": "-lsq", "LAQ": "-laq"}
THREE_LEVELS = {key: {"quantizer": "lsq-symmetric"} for key in ("weights", "embeddings")}
"""LSQ has four levels at 2 bits; with three it is what differs from QuantGPT in the method alone."""
GOALS = {4: 1.08, 2: 1.20}
"""Perplexity over that of the float control, which trains on for as many steps: the paper's own ratios."""
# No choice of the best step: all runs end at their last one.
TRAINING = {"batch_size": 8, "max_length": CONTEXT, "bf16": True, "evaluate_every": 1_000_000, "select": "last"}
_PACT_GRADIENT = {"weights": {"gradient": "pact"}, "embeddings": {"gradient": "pact"}}
_VARIANTS: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
    (
        "QuantGPT 2-2-8 without contrastive loss",
        "w2-no-contrastive",
        "quantgpt-w2e2a8",
        {"distill": {"contrastive": {"weight": 0.0}}},
        "QuantGPT",
    ),
    ("QuantGPT 2-2-8 with PACT's gradient", "w2-pact-gradient", "quantgpt-w2e2a8", _PACT_GRADIENT, "QuantGPT"),
    (
        "QuantGPT 2-2-8 with token-scaled logits",
        "w2-token-scaled",
        "quantgpt-w2e2a8",
        {"distill": {"token_scaled": True}},
        "QuantGPT",
    ),
    ("LSQ 2-2-8 with three levels", "w2-lsq-symmetric", "quantgpt-w2e2a8-lsq", THREE_LEVELS, "LSQ"),
    ("elastic 2-2-8, four levels, scale a row", "w2-elastic-balanced", "paretoq-w2e2a8", {}, "elastic"),
    ("elastic 2-2-8, three levels, scale a row", "w2-elastic-ternary", "paretoq-ternary-w2e2a8", {}, "elastic"),
    ("statistics 2-2-8, three levels, scale a row", "w2-statistics", "tbt-w2e2a8", {}, "elastic"),
)
_LONGER_RUNS: tuple[tuple[str, str, str, dict[str, Any], str], ...] = (
    ("QuantGPT 2-2-8", "quantgpt-w2e2a8", "quantgpt-w2e2a8", {}, "QuantGPT"),
    # The baseline that comes nearest.
    ("LSQ 2-2-8", "quantgpt-w2e2a8-lsq", "quantgpt-w2e2a8-lsq", {}, "LSQ"),
    ("LSQ 2-2-8 with three levels", "w2-lsq-symmetric", "quantgpt-w2e2a8-lsq", THREE_LEVELS, "LSQ"),
)


def quantgpt_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    control = _claim("float-control", "finetune", {}, scale)
    rows = [Row(CONTROL, (control,), "float")]
    for bits in (2, 4, 8):
        for method, suffix in METHODS.items():
            base = f"quantgpt-w{bits}e{bits}a8{suffix}"
            rows.append(Row(f"{method} {bits}-{bits}-8", (_claim(base, base, {}, scale),), method))
    for label, name, base, changes, rates in _VARIANTS:
        rows.append(Row(label, (_claim(name, base, changes, scale),), rates))
    rows.append(Row(CONTROL + LONG, (_claim("float-control-long", "finetune", {}, LONGER * scale),), "float"))
    for label, name, base, changes, rates in _LONGER_RUNS:
        rows.append(Row(label + LONG, (_claim(f"{name}-long", base, changes, LONGER * scale),), rates))
    tried = {"float": control, "elastic": _claim("elastic", "paretoq-w2e2a8", {}, scale)}
    # A method's rate is searched at 2 bits, where it matters most, and used at all widths.
    for method, suffix in METHODS.items():
        tried[method] = _claim(method.lower(), f"quantgpt-w2e2a8{suffix}", {}, scale)
    searches = {
        name: search(
            claim,
            rates=CONTROL_RATES if name == "float" else RATES,
            epochs=SEARCH_EPOCHS * scale,
            metric="valid",
            lower=True,
        )
        for name, claim in tried.items()
    }
    return Table("first-quantgpt", "QuantGPT on WikiText-2", rows, searches, _render)


def _claim(name: str, base: str, changes: dict[str, Any], scale: float) -> Claim:
    return Claim(
        name=f"wikitext2-{name}",
        task="wikitext2",
        base=base,
        changes={**changes, "training": TRAINING},
        epochs=EPOCHS * scale,
        seed=SEED,
        until=1,
    )


def _render(table: Table, finished: Finished) -> list[str]:
    tests = {
        row.label: result.get("test") for row in table.rows for result in row.results(finished) if "test" in result
    }
    lines = [
        FIRST_SERIES
        + " Rates of what quantizers learn were absolute in these runs: 0.4 times those of the weights, for "
        "clips of 2.5 and for steps of 0.001 alike; and each quantizer started where its paper says.",
        "",
        "Perplexity per token of the packed model, windows of 256 tokens. The float control is the teacher, trained on "
        "for as many steps as the row that is compared with it.",
        "",
        "| model | test | test / float control | learning rate | MiB stored |",
        "|---|---|---|---|---|",
    ]
    for row in table.rows:
        for result in row.results(finished):
            rate = result["changes"]["training"]["learning_rate"]
            if "failed" in result:
                lines.append(f"| {row.label} | failed: {result['failed']} | | {rate:g} | |")
                continue
            control = tests.get(CONTROL + LONG if row.label.endswith(LONG) else CONTROL)
            ratio = f"{result['test'] / control:.3f}" if control else ""
            stored = result["stored_bytes"]["stored_bytes"] / 2**20
            lines.append(f"| {row.label} | {result['test']:.2f} | {ratio} | {rate:g} | {stored:.2f} |")
    verdicts = [_verdict(bits, tests, list(METHODS)) for bits in GOALS]
    return [*lines, "", *verdicts, _verdict(2, tests, ("QuantGPT", "LSQ"), after=LONG)]


def _verdict(bits: int, tests: dict[str, float], methods: Sequence[str], *, after: str = "") -> str:
    width, goal = f"{bits}-{bits}-8{after}", GOALS[bits]
    own, control = tests.get(f"QuantGPT {width}"), tests.get(CONTROL + after)
    if own is None or control is None:
        return f"- {width}: not measured yet."
    measured = {method: tests[label] for method in methods if (label := f"{method} {width}") in tests}
    best = min(measured, key=lambda method: measured[method])
    word = "met" if own <= goal * control else "missed"
    beside = f"the best of {', '.join(methods)} is {best}"
    if len(measured) < len(methods):
        beside = "the others are not measured yet"
    return f"- {width}: {own / control:.3f} times the float control, goal {goal:.2f}: {word}; {beside}."
