"""How far off ``edgeq estimate`` is: estimated beside measured kernels on this machine, counted beside known products.

    python -m benchmarks.estimate --measure TIMES BUNDLE...
    python -m benchmarks.estimate --times TIMES --model znver4 --results FILE BUNDLE... [--arm BUNDLE...]

The first bundles are for a target that this machine runs and the emulator too (x86-64-v3). Whole calls and their
kernels are timed in runs of ``edgeq-run --profile`` on one thread, all bundles in turns; the fastest run of each
counts. Several visits with --measure add to one file: the machine may be busy during one of them. The estimate assumes
the clock and the bandwidth that this machine showed in the same minutes. Those after --arm are for ARM targets: the dot
products that the emulator counts in each matrix kernel are compared with the multiplications of its matrices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimate.limits import better_limits, machine_limits, own_cache_mib, processor_of
from benchmarks.estimate.products import counted_products
from benchmarks.estimate.whole import RUNS_OF_EACH, case, measure, print_whole, whole_row
from benchmarks.machine import facts
from edgeq.files import write_text
from edgeq.targets.builtin.target import ProcessorModel, load_target
from edgeq.targets.devices.estimate.estimator import Estimate, estimate_bundle
from edgeq.targets.devices.estimate.tools import find_llvm
from edgeq.targets.runtime.manifest import read_manifest

SHORTEST = 20e-6
"""Kernels that take less in a whole run are left out: the clock around each call, and what the caches hold, decide."""


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", help="bundles for x86-64-v3")
    parser.add_argument("--arm", type=Path, nargs="*", default=[], help="bundles for ARM targets")
    parser.add_argument("--measure", type=Path, metavar="TIMES", help="only measure, and add to this file")
    parser.add_argument("--times", type=Path, help="file of earlier measurements; default: measure now")
    parser.add_argument("--model", help="LLVM's name of this machine's processor, such as znver4")
    parser.add_argument("--sequence", type=int, nargs="+", default=[16, 32, 128], help="tokens in each text")
    parser.add_argument("--rounds", type=int, default=20, help=f"rounds of {RUNS_OF_EACH} runs of each bundle")
    parser.add_argument("--results", type=Path, help="file to write")
    options = parser.parse_args()
    if options.measure is not None:
        write_text(options.measure, json.dumps(measured(options, earlier=options.measure), indent=1) + "\n")
        return 0
    if options.model is None or options.results is None:
        parser.error("--model and --results are needed, unless --measure says that nothing is to be estimated")
    found = compared(options, json.loads(options.times.read_text()) if options.times else measured(options))
    write_text(options.results, json.dumps(found, indent=1) + "\n")
    print_table(found)
    return 0 if all(row["ratio"] == 1 for row in found["arm"]) else 1


def measured(options: argparse.Namespace, *, earlier: Path | None = None) -> dict[str, Any]:
    """Returns limits of this machine and times of all calls, the better of now and of an earlier visit's file."""
    before = json.loads(earlier.read_text()) if earlier is not None and earlier.is_file() else {}
    limits = better_limits(machine_limits(), before.get("limits"))
    times = measure(options.bundles, options.sequence, rounds=options.rounds, earlier=before.get("times", {}))
    return {"limits": limits, "load": [*before.get("load", []), facts()["load"]], "times": times}


def compared(options: argparse.Namespace, times: dict[str, Any]) -> dict[str, Any]:
    """Returns the results: estimates beside times, kernel by kernel and of whole calls."""
    processor = processor_of(times["limits"], model=options.model, own_cache_mib=own_cache_mib())
    kernels: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    for bundle in options.bundles:
        for sequence in options.sequence:
            estimate = estimate_here(bundle, sequence=sequence, processor=processor)
            taken = times["times"][case(bundle, sequence)]
            kernels += kernel_rows(estimate, bundle.name, times=taken["kernels"])
            whole.append(whole_row(estimate, bundle.name, times=taken))
    return {
        "machine": facts() | {"llvm-mca": find_llvm().version, "loads": times["load"]},
        "limits": times["limits"],
        "processor": dataclasses.asdict(processor),
        "whole": whole,
        "kernels": kernels,
        "spread": spread([kernel["ratio"] for kernel in kernels]),
        "arm": [row for bundle in options.arm for row in counted_products(bundle, sequence=options.sequence[0])],
    }


def estimate_here(bundle: Path, *, sequence: int, processor: ProcessorModel) -> Estimate:
    """Estimates a bundle as if its target were this machine."""
    target = load_target(read_manifest(bundle).name)
    here = dataclasses.replace(target, name="this machine", estimate=processor)
    return estimate_bundle(bundle, target=here, sequence=sequence)


def kernel_rows(estimate: Estimate, bundle: str, *, times: dict[str, float]) -> list[dict[str, Any]]:
    """Returns a row for each kernel of a bundle: seconds estimated and measured in one run, and their ratio.

    Args:
        estimate: Of the bundle.
        bundle: Its name.
        times: Fewest seconds that all calls of a kernel took in one run, by its name.
    """
    return [
        {
            "bundle": bundle,
            "sequence": estimate.sequence,
            "kernel": kernel.name,
            "calls": kernel.calls,
            "instructions": kernel.instructions,
            "estimated": kernel.seconds,
            "of_it_memory": kernel.memory_seconds,
            "measured": times[kernel.name],
            "ratio": kernel.seconds / times[kernel.name],
        }
        for kernel in estimate.kernels
        if times.get(kernel.name, 0.0) >= SHORTEST
    ]


def spread(ratios: list[float]) -> dict[str, float]:
    """Says how ratios of estimate to measurement lie: their middle, and what is around it."""
    logarithms = np.log(ratios)
    middle = float(np.median(logarithms))
    return {
        "kernels": len(ratios),
        "median": float(np.exp(middle)),
        "least": min(ratios),
        "tenth": float(np.exp(np.quantile(logarithms, 0.1))),
        "ninetieth": float(np.exp(np.quantile(logarithms, 0.9))),
        "most": max(ratios),
        "typical_factor_off_the_median": float(np.exp(np.median(np.abs(logarithms - middle)))),
    }


def print_table(found: dict[str, Any]) -> None:
    """Prints the comparison as tables in Markdown."""
    print_whole(found["whole"])
    print("| bundle | tokens | kernel | estimate | measured | ratio |\n|---|---|---|---|---|---|")
    for row in found["kernels"]:
        times = f"{1e6 * row['estimated']:.0f} us | {1e6 * row['measured']:.0f} us | {row['ratio']:.2f}"
        print(f"| {row['bundle']} | {row['sequence']} | {row['kernel']} | {times} |")
    print({name: round(value, 3) for name, value in found["spread"].items()})
    for row in found["arm"]:
        print(f"{row['target']} {row['kernel']}: {row['counted']:,} products counted, {row['known']:,} known")


if __name__ == "__main__":
    sys.exit(main())
