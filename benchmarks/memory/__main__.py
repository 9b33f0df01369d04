"""How much memory each stage of ``deploy`` takes, over the bytes of the float checkpoint.

    python -m benchmarks.memory --work FOLDER [--model NAME ...] [--results FILE]

Each stage runs in a process of its own, which runs the same stage on a small model first: libraries and their tables
are there before the count begins. Counted is the growth of the resident set from then to its largest, files that are
mapped included. Ends with 1 if a stage takes more than 2.5 times the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.memory.stage import MODELS, STAGES
from edgeq.files import write_json

HERE = Path(__file__).parent
MOST = 2.5
"""Times the float checkpoint."""


def main() -> int:
    """Runs the benchmark; returns 1 if the goal is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for models and bundles, about 3 GB a model")
    parser.add_argument("--model", choices=[*MODELS], action="append", help="only this one; repeatable")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    known = json.loads(options.results.read_text(encoding="utf-8")) if options.results.is_file() else {}
    results: dict[str, Any] = {"goal": MOST, "models": {}} | known
    for name in options.model or MODELS:
        results["models"][name] = {"machine": facts(), **_model(name, options.work)}
        write_json(options.results, results)
    found = [stage["ratio"] for model in results["models"].values() for stage in model["stages"].values()]
    return int(max(found) > MOST)


def _model(name: str, work: Path) -> dict[str, Any]:
    for model in (name, "small"):
        _run(["create", model, str(work / model)])
    size = (work / name / "float" / "model.safetensors").stat().st_size
    stages = {}
    for stage in STAGES:
        found = _run([stage, str(work / name), str(work / "small")])
        stages[stage] = found | {"ratio": round(found["bytes"] / size, 2)}
        print(f"{name}: {stage}: {found['bytes'] / 1e6:.0f} MB, {stages[stage]['ratio']} times float", flush=True)
    return {"checkpoint_bytes": size, "stages": stages}


def _run(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory.stage", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
