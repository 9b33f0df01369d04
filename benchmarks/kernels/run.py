"""Kernels beside the limits of the machine, measured in turns in one run.

    python -m benchmarks.kernels.run --threads 1 --out kernels.json

Each round times every kernel and every limit once, so that all see the same load; the fastest round of each counts,
since other programs can only add time. A share above 100% of the reading limit means that the data was in a cache.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.machine import facts, turn_seconds
from edgeq.files import write_text
from edgeq.progress import Progress
from edgeq.sizes import counted
from edgeq.targets.builtin.target import load_target

CALLS_SECONDS = 0.004
"""One timing lasts about this long."""


def main() -> int:
    """Measures, prints the table and writes the file."""
    options = _arguments()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # read when tvm makes its pool
    result = measure(options.target, threads=options.threads, rounds=options.rounds, only=options.only)
    print(table(result))
    if options.out is not None:
        write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def measure(
    target: str, *, threads: int, rounds: int, only: str = "", progress: Progress | None = None
) -> dict[str, Any]:
    """Returns the machine, its limits and every kernel's rate.

    Args:
        target: Name of a target whose code runs here.
        threads: Threads of every kernel.
        rounds: Rounds in which they take turns.
        only: Part of the names of the kernels that are asked for.
        progress: Told after each round.
    """
    from benchmarks.kernels.cases import all_cases
    from benchmarks.kernels.peaks import float_peak, integer_peak, read_peak
    from edgeq.targets.compiler.isa import isa_named

    described = load_target(target)
    isa = isa_named(described.isa)
    peaks = [integer_peak(isa, threads), float_peak(threads), read_peak(threads)]
    cases = [case for case in all_cases(isa) if only in case.name]
    timed = {peak.name: _timer(peak.function, peak.arrays, described) for peak in peaks}
    timed |= {case.name: _timer(case.build(), case.arrays(), described) for case in cases}
    best = dict.fromkeys(timed, float("inf"))
    for index in range(rounds):
        for name, timer in timed.items():
            best[name] = min(best[name], timer())
        if progress is not None:
            progress("measuring kernels", index + 1, rounds)
    limits = {peak.name: peak.work / best[peak.name] * 1e-9 for peak in peaks}
    rows = [
        {
            "name": case.name,
            "microseconds": best[case.name] * 1e6,
            "rate": case.work / best[case.name] * 1e-9,
            "limit": case.peak,
            "share": case.work / best[case.name] * 1e-9 / limits[case.peak],
        }
        for case in cases
    ]
    units = {peak.name: peak.unit for peak in peaks}
    return {
        "target": target, "threads": threads, "rounds": rounds, "machine": facts(),
        "limits": limits, "units": units, "kernels": rows,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Returns the result as a Markdown table."""
    units = result["units"]
    lines = [f"| limit ({counted(result['threads'], 'thread')}) | rate |", "| --- | --- |"]
    lines += [f"| {name} | {rate:.1f} {units[name]} |" for name, rate in result["limits"].items()]
    lines += ["", "| kernel | time | rate | share of the limit |", "| --- | --- | --- | --- |"]
    for row in result["kernels"]:
        rate = f"{row['rate']:.1f} {units[row['limit']]}"
        lines.append(f"| {row['name']} | {row['microseconds']:.1f} us | {rate} | {row['share']:.0%} |")
    return "\n".join(lines)


def _timer(function: Any, arrays: list[Any], target: Any) -> Any:
    """Compiles a kernel and returns what measures the seconds of one call."""
    import tvm

    from edgeq.targets.compiler.objects import PASS_OPTIONS

    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        library = tvm.compile(module, target=tvm.target.Target(target.tvm_target))
    run, tensors = library["main"], [tvm.runtime.tensor(array) for array in arrays]
    return turn_seconds(lambda: run(*tensors), CALLS_SECONDS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default="", help="part of the names of the kernels that are asked for")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
