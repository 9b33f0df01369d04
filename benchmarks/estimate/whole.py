"""Times of whole calls on this machine, taken in turns, and what estimates are beside them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.bundle.tensor_sets import call_of_main, encode_calls
from edgeq.targets.devices.estimate.estimator import Estimate
from edgeq.targets.devices.workload import made_up_texts
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.runtime.names import RUNNER_FILE

RUNS_OF_EACH = 5
GOAL = (0.75, 1.33)
"""Where every ratio of a whole call is to lie."""
Times = dict[str, dict[str, Any]]


def case(bundle: Path, sequence: int) -> str:
    """Returns the name of a call in a file of times."""
    return f"{bundle.name} {sequence}"


def measure(bundles: Sequence[Path], sequences: Sequence[int], *, rounds: int, earlier: Times) -> Times:
    """Times whole calls and their kernels on one thread, all bundles in turns.

    Args:
        bundles: Bundles that this machine runs.
        sequences: Tokens in each text, or in the cache before a step.
        rounds: Rounds of :data:`RUNS_OF_EACH` runs of each call.
        earlier: Times of an earlier visit; the fewest seconds of both count.

    Returns:
        For each call its fewest ``seconds``, their ``median``, ``runs``, and the fewest of each of its ``kernels``.
    """
    found: Times = {name: dict(times) for name, times in earlier.items()}
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            case(bundle, sequence): _command(bundle, sequence, Path(folder) / f"{at} {sequence}")
            for at, bundle in enumerate(bundles)
            for sequence in sequences
        }
        for _ in range(rounds):
            for name, command in commands.items():
                result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
                _add(found.setdefault(name, {"all": [], "kernels": {}}), json.loads(result.stdout))
    return {name: times | {"seconds": min(times["all"]), "median": float(np.median(times["all"])),
                           "runs": len(times["all"])} for name, times in found.items()}  # fmt: skip


def _command(bundle: Path, sequence: int, inputs: Path) -> list[str]:
    manifest = read_manifest(bundle)
    texts = made_up_texts(manifest, bundle, batch=1, sequence=sequence)
    inputs.write_bytes(encode_calls([call_of_main(texts.inputs, manifest)], tagged=manifest.model.task == "seq2seq"))
    options = ["--no-verify", "--threads", "1", "--repeat", str(RUNS_OF_EACH), "--profile", str(inputs)]
    return [str(bundle.absolute() / RUNNER_FILE), str(bundle.absolute()), *options]


def _add(times: dict[str, Any], profile: dict[str, Any]) -> None:
    times["all"] += profile["seconds"]
    best = times["kernels"]
    for kernel in profile["kernels"]:
        best[kernel["name"]] = min([*kernel["seconds"], best.get(kernel["name"], np.inf)])


def whole_row(estimate: Estimate, bundle: str, *, times: dict[str, Any]) -> dict[str, Any]:
    """Returns the row of a whole call: what is estimated for all kernels over what the call took.

    Args:
        estimate: Of the bundle.
        bundle: Its name.
        times: The call's entry in a file of times.
    """
    ratio = estimate.seconds / times["seconds"]
    return {
        "bundle": bundle,
        "sequence": estimate.sequence,
        "estimated": estimate.seconds,
        "of_it_memory": sum(kernel.memory_seconds for kernel in estimate.kernels),
        "measured": times["seconds"],
        "measured_median": times["median"],
        "runs": times["runs"],
        "of_it_kernels": sum(times["kernels"].values()),
        "ratio": ratio,
        "within_the_goal": GOAL[0] <= ratio <= GOAL[1],
    }


def print_whole(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the whole calls as a table in Markdown."""
    print("| bundle | tokens | estimate | measured | median | ratio | within 0.75 to 1.33 |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        times = " | ".join(f"{1e3 * row[key]:.2f} ms" for key in ("estimated", "measured", "measured_median"))
        within = "yes" if row["within_the_goal"] else "no"
        print(f"| {row['bundle']} | {row['sequence']} | {times} | {row['ratio']:.2f} | {within} |")
