"""Texts a second through a bundle, tokenizing included, at several token budgets.

    python -m benchmarks.texts.budgets BUNDLE --texts dev.tsv [--results FILE] [--count 300] [--threads 1]

The texts are sentences of an evaluation file, shuffled. The baseline runs them sixteen at a time in the order of
arrival, each padded to the longest of its sixteen. Baseline and budgets take turns; the median of the ratios of the
rounds is stated, by the processor time of the process (one thread: a busy machine changes it little) and by the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from benchmarks.machine import facts
from edgeq.evaluate.data import read_rows
from edgeq.targets.runtime.loader import Bundle
from edgeq.targets.runtime.text_batches import BATCHES_OF_WINDOW, TOKEN_BUDGET

BASELINE_BATCH = 16
BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
SEED = 0


def main() -> int:
    """Runs the benchmark and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="bundle for this machine that embeds texts")
    parser.add_argument("--texts", type=Path, required=True, help="table with columns sentence1 and sentence2")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/texts/budgets.json"))
    parser.add_argument("--count", type=int, default=300, help="texts, drawn from the table")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--threads", type=int, default=1, help="threads of the kernels")
    options = parser.parse_args()
    bundle = edgeq.load(options.bundle, threads=options.threads)
    texts = _texts(options.texts, options.count)
    lengths = [len(ids) for ids in bundle.tokenize(texts)]
    if sum(lengths) > BATCHES_OF_WINDOW * min(BUDGETS):
        parser.error("the texts must lie within one window of every budget; give a smaller --count")
    calls: dict[str, Callable[[], object]] = {"baseline": lambda: _in_order_of_arrival(bundle, texts)}
    for budget in BUDGETS:
        calls[str(budget)] = lambda budget=budget: bundle.encode(texts, token_budget=budget)
    results = {
        "machine": facts(),
        "bundle": {"model": bundle.manifest.model.architecture, "recipe": bundle.manifest.recipe.get("name")},
        "texts": {"file": options.texts.name, "count": len(texts), "tokens": sum(lengths)},
        "threads": options.threads,
        "seed": SEED,
        "default_token_budget": TOKEN_BUDGET,
        "rows": _measured(calls, lengths, options.rounds),
    }
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for row in results["rows"]:
        print(
            f"{row['batches']:>8}: {row['texts_per_cpu_second']:6.1f} texts a processor second, {row['ratio_cpu']:.2f} "
            f"times the baseline (clock: {row['ratio_clock']:.2f}), {row['padded']:.2f} times the tokens"
        )
    return 0


def _texts(file: Path, count: int) -> list[str]:
    rows = read_rows(file)
    texts = sorted({cells[column] for _, cells in rows for column in ("sentence1", "sentence2")})
    random.Random(SEED).shuffle(texts)  # noqa: S311
    return texts[:count]


def _in_order_of_arrival(bundle: Bundle, texts: list[str]) -> list[np.ndarray]:
    encoded = bundle.tokenize(texts)
    starts = range(0, len(texts), BASELINE_BATCH)
    batches = (encoded[start : start + BASELINE_BATCH] for start in starts)
    return [next(iter(bundle(**_padded(batch)).values())) for batch in batches]


def _padded(texts: list[list[int]]) -> dict[str, np.ndarray]:
    shape = len(texts), max(map(len, texts))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def _measured(calls: dict[str, Callable[[], object]], lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    """Takes turns and returns a row for each call."""
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    clock: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = time.process_time(), time.perf_counter()
            call()
            cpu[name].append(time.process_time() - before[0])
            clock[name].append(time.perf_counter() - before[1])
    return [
        {
            "batches": name,
            "padded": _computed_tokens(name, lengths) / sum(lengths),
            "texts_per_cpu_second": len(lengths) / statistics.median(cpu[name]),
            "texts_per_second": len(lengths) / statistics.median(clock[name]),
            "ratio_cpu": _ratio(cpu["baseline"], cpu[name]),
            "ratio_clock": _ratio(clock["baseline"], clock[name]),
        }
        for name in calls
    ]


def _ratio(baseline: list[float], found: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(baseline, found, strict=True))


def _computed_tokens(name: str, lengths: list[int]) -> int:
    """Tokens that the kernels see, padding included."""
    if name == "baseline":
        parts = [lengths[start : start + BASELINE_BATCH] for start in range(0, len(lengths), BASELINE_BATCH)]
    else:
        parts, left = [], sorted(lengths, reverse=True)
        while left:
            count = max(1, int(name) // left[0])
            parts.append(left[:count])
            left = left[count:]
    return sum(len(part) * max(part) for part in parts)


if __name__ == "__main__":
    raise SystemExit(main())
