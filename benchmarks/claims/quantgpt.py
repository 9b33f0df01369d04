"""QuantGPT on WikiText-2, from a teacher at its plateau: every method with its own rates and start, three seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.intervals import Ratio, verdict
from benchmarks.claims.language_models import over
from benchmarks.claims.measure import CONTEXT, PLATEAU_TEACHER
from benchmarks.claims.rates import Search, search
from benchmarks.claims.table import Finished, Row, Table

EPOCHS = 0.125
LONGER = 4
SEARCH_EPOCHS = 0.05
SEEDS = (1, 2, 3)
CONTROL = "float control"
CONTROL_RATES = (2e-5, 5e-5, 1e-4, 2e-4)
RATES = (1e-3, 2e-3)
QUANTIZER_RATES = (1e-3, 1e-2)
"""Relative to the size of what is learned."""
STARTS = ("method", "error")
LONG = f", {LONGER} times the steps"
THREE = "LSQ with three levels"
METHODS = {"QuantGPT": "", "PACT": "-pact", "LSQ": "-lsq", THREE: "-lsq", "LAQ": "-laq"}
"""Methods by the end of their recipe's name. At 2 bits QuantGPT has three levels and LSQ four: with three it is the
opponent that differs in the method alone, with four the strongest one."""
_THREE_LEVELS = {key: {"quantizer": "lsq-symmetric"} for key in ("weights", "embeddings")}
_PACT_GRADIENT = {key: {"gradient": "pact"} for key in ("weights", "embeddings")}
PARTS: dict[str, dict[str, Any]] = {
    "without contrastive loss": {"distill": {"contrastive": {"weight": 0.0}}},
    "without module scaling's gradient (PACT's)": _PACT_GRADIENT,
}
"""QuantGPT with one part less."""
GOALS = {4: (1.08, "1.07 (15.55 of 14.48)"), 2: (1.20, "1.195 (17.30 of 14.48)")}
"""Perplexity over that of the float control that is the goal, by bits, and what the paper has over the float model."""
_TRAINING = {"batch_size": 8, "max_length": CONTEXT, "bf16": True, "evaluate_every": 1_000_000, "select": "last"}


def quantgpt_table(scale: float) -> Table:
    """Makes the table; ``scale`` multiplies all epochs."""
    rows = [Row(CONTROL, _claims("control", "finetune", {}, scale), CONTROL)]
    for bits in (2, 4, 8):
        seeds = SEEDS if bits == 2 else SEEDS[:1]
        rows += [
            Row(f"{method} {bits}-{bits}-8", _method(method, bits, scale, seeds), f"{method} {bits}")
            for method in _methods(bits)
        ]
    rows += [Row(f"QuantGPT 2-2-8 {part}", _part(part, scale), "QuantGPT 2") for part in PARTS]
    rows.append(Row(CONTROL + LONG, _claims("control-long", "finetune", {}, LONGER * scale), CONTROL))
    rows += [
        Row(f"{method} 2-2-8{LONG}", _method(method, 2, LONGER * scale, SEEDS, suffix="-long"), f"{method} 2")
        for method in METHODS
    ]
    rows += [
        Row(f"QuantGPT 2-2-8 {part}{LONG}", _part(part, LONGER * scale, suffix="-long"), "QuantGPT 2") for part in PARTS
    ]
    return Table("quantgpt", "QuantGPT on WikiText-2", rows, _searches(scale), _render)


def _methods(bits: int) -> list[str]:
    """LSQ has as many levels as the others from 4 bits on, but for one."""
    return [method for method in METHODS if bits == 2 or method != THREE]


def _searches(scale: float) -> dict[str, Search]:
    common: dict[str, Any] = {"epochs": SEARCH_EPOCHS * scale, "metric": "valid", "lower": True}
    searches = {CONTROL: search(_claims("control", "finetune", {}, scale)[0], rates=CONTROL_RATES, **common)}
    for bits in (2, 4, 8):
        for method in _methods(bits):
            learns = method != "LAQ"
            searches[f"{method} {bits}"] = search(
                _method(method, bits, scale, SEEDS[:1])[0],
                rates=RATES,
                quantizer_rates=QUANTIZER_RATES if learns else (None,),
                starts=STARTS if learns else (None,),
                **common,
            )
    return searches


def _method(method: str, bits: int, scale: float, seeds: Sequence[int], *, suffix: str = "") -> tuple[Claim, ...]:
    base = f"quantgpt-w{bits}e{bits}a8{METHODS[method]}"
    name = base.removeprefix("quantgpt-") + ("-three" if method == THREE else "") + suffix
    return _claims(name, base, _THREE_LEVELS if method == THREE else {}, scale, seeds=seeds)


def _part(part: str, scale: float, *, suffix: str = "") -> tuple[Claim, ...]:
    return _claims(f"w2e2a8-part{list(PARTS).index(part)}{suffix}", "quantgpt-w2e2a8", PARTS[part], scale)


def _claims(
    name: str, base: str, changes: dict[str, Any], scale: float, *, seeds: Sequence[int] = SEEDS
) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"gpt2-quantgpt-{name}-{seed}",
            task="wikitext2",
            base=base,
            changes={**changes, "training": _TRAINING},
            epochs=EPOCHS * scale,
            seed=seed,
            source=PLATEAU_TEACHER,
            since=2,
        )
        for seed in seeds
    )


def _render(table: Table, finished: Finished) -> list[str]:
    lines = [
        "Perplexity per token of the packed model, windows of 256 tokens. The float control is the teacher, which was "
        "trained until validation stopped improving, trained on for as many steps as the row that is compared with it. "
        "All rows of a length have the same steps, data and losses, and as many rates and starts were tried for each, "
        "but for LAQ, which learns no numbers (its rate alone), and for rows with one part less (QuantGPT's).",
        "",
        "| model | test, by seed | mean | over the float control [95%] | learning rates, start | MiB stored |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        results = [result for result in row.results(finished) if "test" in result]
        failed = [one["failed"] for one in row.results(finished) if "failed" in one]
        lines += [f"| {row.label} | failed: {reason} | | | | |" for reason in failed]
        if results:
            tests = [result["test"] for result in results]
            ratio = over(row.label, CONTROL + LONG if row.label.endswith(LONG) else CONTROL, table, finished)
            stored = results[0]["stored_bytes"]["stored_bytes"] / 2**20
            lines.append(
                f"| {row.label} | {', '.join(f'{test:.2f}' for test in tests)} | {statistics.mean(tests):.2f} | "
                f"{ratio or ''} | {_settings(results[0])} | {stored:.2f} |"
            )
    return [*lines, "", *_verdicts(table, finished)]


def _settings(result: dict[str, Any]) -> str:
    training = result["changes"]["training"]
    start = result["changes"].get("weights", {}).get("start")
    rates = f"{training['learning_rate']:g}, quantizers {training['quantizer_learning_rate']:g}"
    return rates if start is None else f"{rates}, {start}"


def _verdicts(table: Table, finished: Finished) -> list[str]:
    lines = []
    for bits, (goal, paper) in GOALS.items():
        ratio = over(f"QuantGPT {bits}-{bits}-8", CONTROL, table, finished)
        ours = "not measured yet" if ratio is None else f"{ratio}: {verdict(ratio.low, ratio.high, goal, lower=True)}"
        lines.append(f"- {bits}-{bits}-8 over float: paper {paper}; our goal {goal:.2f}; ours {ours}.")
    for after in ("", LONG):
        own = f"QuantGPT 2-2-8{after}"
        others = [f"{method} 2-2-8{after}" for method in METHODS if method != "QuantGPT"]
        for other in [*others, *(f"QuantGPT 2-2-8 {part}{after}" for part in PARTS)]:
            ratio = over(own, other, table, finished)
            if ratio is not None:
                lines.append(f"- {own} over {other}: {ratio}: {_word(ratio)}.")
    return lines


def _word(ratio: Ratio) -> str:
    if ratio.high < 1:
        return "better"
    return "worse" if ratio.low > 1 else "no difference beyond the interval"
