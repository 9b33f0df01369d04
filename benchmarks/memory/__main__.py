"""How much memory each stage of ``deploy`` takes, over the bytes of the float checkpoint.

    python -m benchmarks.memory --work FOLDER [--model NAME ...] [--stage NAME ...] [--results FILE]

Each stage runs in a process of its own, which runs the same stage on a small model first: libraries and their tables
are there before the count begins. Counted is the growth of the resident set from then to its largest, files that are
mapped included. Ends with 1 if a stage takes more than 2.5 times the checkpoint. With --stage only these are measured,
on what an earlier run left in FOLDER, and the others keep their results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.memory.stage import MODELS, SMALL, STAGES
from edgeq.files import write_json

HERE = Path(__file__).parent
MOST = 2.5
"""Times the float checkpoint."""


def main() -> int:
    """Runs the benchmark; returns 1 if the goal is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and bundles, about 3 GB a model")
    parser.add_argument("--model", choices=MODELS, action="append", help="only this one; repeatable")
    parser.add_argument("--stage", choices=[*STAGES], action="append", help="only this one; repeatable")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    known = json.loads(options.results.read_text(encoding="utf-8")) if options.results.is_file() else {}
    results: dict[str, Any] = {"goal": MOST, "models": {}} | known
    for name in options.model or MODELS:
        _measure(name, options.work, results["models"].setdefault(name, {"stages": {}}), stages=options.stage)
        write_json(options.results, results)
    found = [stage["ratio"] for model in results["models"].values() for stage in model["stages"].values()]
    return int(max(found) > MOST)


def _measure(name: str, work: Path, found: dict[str, Any], *, stages: list[str] | None) -> None:
    """Puts the stages of a model into ``found``, each with the machine and the commit that it was measured on."""
    if stages is None:
        for model in (name, SMALL[name]):
            _run(["create", model, str(work / model)])
    size = found["checkpoint_bytes"] = (work / name / "float" / "model.safetensors").stat().st_size
    for stage in stages or STAGES:
        one = _run([stage, str(work / name), str(work / SMALL[name])])
        one |= {"ratio": round(one["bytes"] / size, 2), "machine": facts()}
        found["stages"][stage] = one
        print(f"{name}: {stage}: {one['bytes'] / 1e6:.0f} MB, {one['ratio']} times float", flush=True)


def _run(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory.stage", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
