"""GPT-2 small and BART-base with random weights through every stage: time, memory and bytes of each.

    python -m benchmarks.true_size --out FOLDER [--results FILE]

Every stage runs in a process of its own. What lies in FOLDER is made again. Ends with 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.true_size.models import MEBIBYTE, MODELS
from benchmarks.true_size.stage import CONTEXTS, STAGES

_GIBIBYTE = 1 << 30
_MOST_SECONDS, _MOST_MEMORY = 180, 4 * _GIBIBYTE
"""Of exporting, and of compiling GPT-2 small."""
_MOST_STEP_RATIO = 2.1
_TIMED = ("export", "compile")


def main() -> int:
    """Runs the benchmark and returns the exit code: 0 if every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for models and bundles, about 3 GB")
    parser.add_argument("--results", type=Path, help="file to write (default: results.json in that folder)")
    parser.add_argument("--model", choices=[*MODELS], action="append", help="only this one; repeatable")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": facts(), "environment": _environment(), "models": {}}
    for name in options.model or MODELS:
        results["models"][name] = _run_model(name, options.out / name)
    results["checks"] = [check for name in results["models"] for check in _checks(name, results["models"][name])]
    written = options.results or options.out / "results.json"
    written.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for check in results["checks"]:
        print(f"[{'ok' if check['ok'] else 'BROKEN'}] {check['what']}: {check['found']} (bound {check['bound']})")
    print(f"wrote {written}")
    return 0 if all(check["ok"] for check in results["checks"]) else 1


def _environment() -> dict[str, str]:
    return {key: os.environ.get(key, "not set") for key in ("OMP_NUM_THREADS", "TVM_NUM_THREADS")}


def _run_model(name: str, folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stages: dict[str, Any] = {}
    for stage in STAGES:
        print(f"{name}: {stage}", flush=True)
        stages[stage] = _run_stage(name, stage, folder)
        print(f"  {stages[stage]['seconds']:.1f} s, {stages[stage]['peak_bytes'] / MEBIBYTE:.0f} MiB", flush=True)
    return stages


def _run_stage(name: str, stage: str, folder: Path) -> dict[str, Any]:
    """Wall time, start of Python and imports included, and the largest resident set of the process."""
    output = folder / f"{stage}.json"
    start = time.monotonic()
    with output.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "benchmarks.true_size.stage", name, stage, str(folder)]
        process = subprocess.Popen(command, stdout=stream)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{name}: {stage} ended with code {process.returncode}")
    found = json.loads(output.read_text(encoding="utf-8").splitlines()[-1])
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": usage.ru_maxrss * 1024, **found}


def _checks(name: str, stages: dict[str, Any]) -> list[dict[str, Any]]:
    def at_most(what: str, found: float, bound: float) -> dict[str, Any]:
        return {"what": f"{name}: {what}", "found": round(found, 3), "bound": bound, "ok": found <= bound}

    def holds(what: str, found: bool) -> dict[str, Any]:
        return {"what": f"{name}: {what}", "found": found, "bound": True, "ok": found}

    bound = MODELS[name].most_bytes / MEBIBYTE
    generated = stages["generate"]
    checks = [
        at_most("MiB of all tensors, scales included", stages["compress"]["stored_bytes"] / MEBIBYTE, round(bound, 2)),
        at_most("MiB of weights.bin", stages["compile"]["stored_bytes"] / MEBIBYTE, round(bound, 2)),
        holds("parity", stages["parity"]["passed"]),
        holds("a batch gives the tokens of a text alone", generated["a_batch_gives_the_tokens_of_a_text_alone"]),
    ]
    if not MODELS[name].reads_source:
        what = f"time of a step at {CONTEXTS[1]} tokens over one at {CONTEXTS[0]}"
        checks.append(at_most(what, generated["step_ratio"], _MOST_STEP_RATIO))
        for stage in _TIMED:
            checks.append(at_most(f"seconds to {stage}", stages[stage]["seconds"], _MOST_SECONDS))
            checks.append(at_most(f"GiB to {stage}", stages[stage]["peak_bytes"] / _GIBIBYTE, _MOST_MEMORY / _GIBIBYTE))
    return checks


if __name__ == "__main__":
    sys.exit(main())
