"""A step of GPT-2 small after 1,000 tokens with each type of cache, in turns.

    python -m benchmarks.cache.speed models --threads 1 --out benchmarks/cache/speed-1.json

The model has random weights (``ptq-w2e2a8``) and is made in the folder once. Each round makes steps with every type of
cache at every batch size; a ratio is the median of the rounds', float16 over the other type.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts, turn_seconds
from benchmarks.speed.prepare import low_bit_onnx
from edgeq.files import write_text

MODEL, RECIPE = "gpt2-small", "ptq-w2e2a8"
TYPES = ("float16", "int8", "float32")
BATCHES = (1, 4)
CONTEXT, PAST = 1024, 1000
TURN_SECONDS = 0.15


def main() -> int:
    """Measures, prints a line for each type and batch size, and writes the file."""
    options = _arguments()
    bundles = {name: _bundle(options.folder, name) for name in TYPES}
    if options.prepare:
        return 0
    result = measure(bundles, threads=options.threads, rounds=options.rounds)
    for row in result["steps"]:
        print(f"batch {row['batch']}, {row['cache']}: {row['ms']:.2f} ms, {row['ratio']:.2f}x")
    if options.out is not None:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def measure(bundles: dict[str, Path], *, threads: int, rounds: int) -> dict[str, Any]:
    """Times steps on all bundles.

    Args:
        bundles: A bundle for each type of cache.
        threads: Threads of a call.
        rounds: Rounds in which they take turns.
    """
    timers = {(batch, name): _timer(path, batch, threads) for batch in BATCHES for name, path in bundles.items()}
    times: dict[tuple[int, str], list[float]] = {key: [] for key in timers}
    for _ in range(rounds):
        for key, timer in timers.items():
            times[key].append(timer())
    rows = []
    for (batch, name), own in times.items():
        ratios = [first / other for first, other in zip(times[batch, TYPES[0]], own, strict=True)]
        low, high = np.quantile(ratios, [0.25, 0.75])
        rows.append(
            {
                "batch": batch,
                "cache": name,
                "ms": statistics.median(own) * 1e3,
                "least ms": min(own) * 1e3,
                "ratio": statistics.median(ratios),
                "middle half": [round(float(low), 3), round(float(high), 3)],
                "cache bytes a token": _token_bytes(bundles[name]),
            }
        )
    about = {"model": MODEL, "recipe": RECIPE, "past": PAST, "threads": threads, "rounds": rounds}
    return {**about, "machine": facts(), "steps": rows}


def _timer(path: Path, batch: int, threads: int) -> Callable[[], float]:
    from edgeq.targets.runtime.loader import load

    bundle = load(path, threads=threads, verify=False)
    state = bundle.new_state(batch)
    # Every token once, so that all memory is there and holds numbers.
    ids = np.random.default_rng(batch).integers(0, 50257, (batch, PAST))
    full = np.full(batch, PAST, np.int64)
    bundle.run({"input_ids": ids, "past_lengths": np.zeros_like(full), "new_lengths": full}, state=state)
    step = {"input_ids": ids[:, :1], "past_lengths": full, "new_lengths": np.ones_like(full)}
    return turn_seconds(lambda: bundle.run(step, state=state), TURN_SECONDS)


def _token_bytes(path: Path) -> int | None:
    from edgeq.ledger import ledger

    cache = ledger(path).cache
    return None if cache is None else cache.token_bytes


def _bundle(root: Path, cache: str) -> Path:
    """Makes the bundle of one type of cache, unless it is there."""
    import edgeq
    from edgeq.targets.builtin.target import load_target

    folder = root / MODEL / RECIPE / f"cache-{cache}"
    if not folder.is_dir():
        low_bit_onnx(MODEL, RECIPE, root=root)
        graph = folder.with_name(f"{folder.name}-onnx")
        edgeq.export_onnx(root / MODEL / RECIPE / "checkpoint", graph, cache=cache, force=True)
        edgeq.compile_bundle(graph, folder, target=load_target("host"), context=CONTEXT)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where models and bundles are kept")
    parser.add_argument("--prepare", action="store_true", help="make the bundles and end")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
