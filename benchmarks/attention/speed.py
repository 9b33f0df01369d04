"""Int8 attention beside float attention of BERT-base, in turns.

    python -m benchmarks.attention.speed --threads 1 --out benchmarks/attention/speed-1.json

Each round times both kernels at every length; a ratio is the median of the rounds', float over int8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts, turn_seconds
from edgeq.files import write_text
from edgeq.targets.builtin.target import load_target

HEADS, HEAD_SIZE = 12, 64
LENGTHS = (32, 128, 256, 512)
TURN_SECONDS = 0.02


def main() -> int:
    """Measures, prints a line for each length, and writes the file."""
    options = _arguments()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # read when tvm makes its pool
    result = measure(options.target, threads=options.threads, rounds=options.rounds)
    for row in result["lengths"]:
        times = f"float {row['float us']:.0f} us, int8 {row['int8 us']:.0f} us"
        print(f"{row['tokens']} tokens: {times}, {row['ratio']:.2f}x")
    if options.out is not None:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def measure(target: str, *, threads: int, rounds: int) -> dict[str, Any]:
    """Times both kernels at every length.

    Args:
        target: Name of a target whose code runs here.
        threads: Threads of both.
        rounds: Rounds in which they take turns.
    """
    timers = {tokens: _timers(target, tokens) for tokens in LENGTHS}
    times: dict[int, list[tuple[float, float]]] = {tokens: [] for tokens in LENGTHS}
    for _ in range(rounds):
        for tokens, (of_float, of_int8) in timers.items():
            times[tokens].append((of_float(), of_int8()))
    rows = [
        {
            "tokens": tokens,
            "float us": min(one for one, _ in pairs) * 1e6,
            "int8 us": min(other for _, other in pairs) * 1e6,
            "ratio": statistics.median(one / other for one, other in pairs),
            "ratios": [round(one / other, 3) for one, other in pairs],
        }
        for tokens, pairs in times.items()
    ]
    shape = {"heads": HEADS, "head_size": HEAD_SIZE, "batch": 1}
    return {"target": target, "threads": threads, "rounds": rounds, "machine": facts(), **shape, "lengths": rows}


def _timers(target: str, tokens: int) -> tuple[Callable[[], float], Callable[[], float]]:
    import tvm

    from edgeq.targets.compiler.isa import isa_named
    from edgeq.targets.compiler.kernels.attention import attention
    from edgeq.targets.compiler.kernels.int8_attention import int8_attention
    from edgeq.targets.compiler.kernels.numerics import instructions_of
    from edgeq.targets.compiler.objects import PASS_OPTIONS

    described = load_target(target)
    isa, scale = isa_named(described.isa), HEAD_SIZE**-0.5
    with instructions_of(isa):
        kernels = (
            attention(isa, HEADS, HEAD_SIZE, scale=scale, masked=True),
            int8_attention(isa, HEADS, HEAD_SIZE, scale=scale),
        )
    chance = np.random.default_rng(tokens)
    states = chance.standard_normal((3, 1, tokens, HEADS * HEAD_SIZE)).astype(np.float32)
    arrays = [*states, np.zeros((1, 1, 1, tokens), np.float32), np.zeros_like(states[0])]
    timers = []
    for kernel in kernels:
        module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
        with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
            run = tvm.compile(module, target=tvm.target.Target(described.tvm_target))["main"]
        timers.append(turn_seconds(_call(run, [tvm.runtime.tensor(array) for array in arrays]), TURN_SECONDS))
    return timers[0], timers[1]


def _call(run: Any, tensors: list[Any]) -> Callable[[], object]:
    return lambda: run(*tensors)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
