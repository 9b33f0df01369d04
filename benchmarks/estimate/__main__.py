"""How far off ``edgeq estimate`` is: estimated beside measured kernels on this machine, counted beside known products.

    python -m benchmarks.estimate --model znver4 --results FILE BUNDLE... [--arm BUNDLE...]

The first bundles are for a target that this machine runs and the emulator too (x86-64-v3). Their kernels are timed in
runs of ``edgeq-run --profile`` on one thread; the fastest run of each counts. The estimate assumes the clock and the
bandwidth that this machine shows in the same minutes. Those after --arm are for ARM targets: the dot products that the
emulator counts in each matrix kernel are compared with the multiplications of its matrices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimate.products import counted_products
from benchmarks.machine import facts
from edgeq.files import write_text
from edgeq.targets.builtin.target import ProcessorModel, load_target
from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.devices.estimate.estimator import estimate_bundle
from edgeq.targets.devices.estimate.tools import find_llvm
from edgeq.targets.devices.workload import made_up_texts
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import RUNNER_FILE

RUNS_OF_EACH = 5
SHORTEST = 20e-6
"""Kernels that take less in a whole run are left out: the clock around each call, and what the caches hold, decide."""


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+", help="bundles for x86-64-v3")
    parser.add_argument("--arm", type=Path, nargs="*", default=[], help="bundles for ARM targets")
    parser.add_argument("--model", required=True, help="LLVM's name of this machine's processor, such as znver4")
    parser.add_argument("--sequence", type=int, nargs="+", default=[16, 128], help="tokens in each text")
    parser.add_argument("--rounds", type=int, default=20, help=f"rounds of {RUNS_OF_EACH} runs of each bundle")
    parser.add_argument("--results", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    limits = machine_limits()
    processor = ProcessorModel(options.model, **limits, cache_megabytes=last_cache_megabytes())
    kernels: list[dict[str, Any]] = []
    for bundle in options.bundles:
        for sequence in options.sequence:
            kernels += compare(bundle, sequence=sequence, processor=processor, rounds=options.rounds)
    found = {
        "machine": facts() | {"llvm-mca": find_llvm().version},
        "processor": dataclasses.asdict(processor),
        "kernels": kernels,
        "spread": spread([kernel["ratio"] for kernel in kernels]),
        "arm": [row for bundle in options.arm for row in counted_products(bundle, sequence=options.sequence[0])],
    }
    write_text(options.results, json.dumps(found, indent=1) + "\n")
    print_table(found)
    return 0 if all(row["ratio"] == 1 for row in found["arm"]) else 1


def machine_limits() -> dict[str, float]:
    """Returns clock and bandwidth of one core of this machine, measured."""
    source = Path(__file__).parent / "limits.c"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        flags = ["-O3", "-march=native", "-std=gnu11"]
        subprocess.run(["cc", *flags, "-o", str(program), str(source)], check=True, timeout=120)
        result = subprocess.run([str(program)], check=True, capture_output=True, text=True, timeout=300)
    return json.loads(result.stdout)


def last_cache_megabytes() -> float:
    """Returns the size of the largest cache that Linux shows for the first core."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max(int(path.read_text().strip().removesuffix("K")) for path in sizes) * 1024 / 1e6


def compare(bundle: Path, *, sequence: int, processor: ProcessorModel, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each kernel of a bundle: seconds estimated and measured in one run, and their ratio."""
    target = load_target(read_manifest(bundle).target.name)
    here = dataclasses.replace(target, name="this machine", estimate=processor)
    estimate = estimate_bundle(bundle, target=here, sequence=sequence)
    measured = fastest(bundle, sequence=sequence, rounds=rounds)
    return [
        {
            "bundle": bundle.name,
            "sequence": sequence,
            "kernel": kernel.name,
            "calls": kernel.calls,
            "instructions": kernel.instructions,
            "estimated": kernel.seconds,
            "of_it_memory": kernel.memory_seconds,
            "measured": measured[kernel.name],
            "ratio": kernel.seconds / measured[kernel.name],
        }
        for kernel in estimate.kernels
        if measured.get(kernel.name, 0.0) >= SHORTEST
    ]


def fastest(bundle: Path, *, sequence: int, rounds: int) -> dict[str, float]:
    """Returns for each kernel the fewest seconds that all its calls took in one run, over many runs."""
    manifest = read_manifest(bundle)
    texts = made_up_texts(manifest, bundle, batch=1, sequence=sequence)
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        tagged = manifest.model.task == "seq2seq"
        inputs.write_bytes(encode_calls([call_of_main(texts.inputs, manifest)], tagged=tagged))
        options = ["--no-verify", "--threads", "1", "--repeat", str(RUNS_OF_EACH), "--profile", str(inputs)]
        command = [str(bundle.absolute() / RUNNER_FILE), str(bundle), *options]
        for _ in range(rounds):
            result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
            for kernel in json.loads(result.stdout)["kernels"]:
                best[kernel["name"]] = min([*kernel["seconds"], best.get(kernel["name"], np.inf)])
    return best


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
    """Prints the comparison as a table in Markdown."""
    print("| bundle | tokens | kernel | estimate | measured | ratio |\n|---|---|---|---|---|---|")
    for row in found["kernels"]:
        times = f"{1e6 * row['estimated']:.0f} us | {1e6 * row['measured']:.0f} us | {row['ratio']:.2f}"
        print(f"| {row['bundle']} | {row['sequence']} | {row['kernel']} | {times} |")
    print({name: round(value, 3) for name, value in found["spread"].items()})
    for row in found["arm"]:
        print(f"{row['target']} {row['kernel']}: {row['counted']:,} products counted, {row['known']:,} known")


if __name__ == "__main__":
    sys.exit(main())
