"""Factorised models at true size against dense ones, in one run: time of a text, of a step, and bytes.

    python -m benchmarks.factors --out FOLDER [--results FILE] [--threads 1]

Setups take turns; what is stated is the fastest turn of each. Models that lie in FOLDER already are not made
again. Ends with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import edgeq
from benchmarks.factors.calls import CONTEXT, SEED, STEP, TEXT, Times, calls_of, take_turns
from benchmarks.factors.models import SETUPS, Setup, make_checkpoint
from benchmarks.machine import facts
from edgeq.ledger import ledger
from edgeq.targets.builtin.target import load_target

GOALS: tuple[tuple[str, str, str, float], ...] = (
    ("BERT-base, tucker-iii-64", "BERT-base, float32, ONNX Runtime", TEXT, 1 / 4),
    ("BERT-base, tucker-iv-72-384", "BERT-base, float32, ONNX Runtime", TEXT, 1.0),
    ("BERT-base, tucker-iv-72-384-w8a8-folded", "BERT-base, ptq-w8a8", TEXT, 1.1),
    ("GPT-2 small, kngpt2", "GPT-2 small, float32, ONNX Runtime", TEXT, 1.0),
    ("GPT-2 small, kngpt2", "GPT-2 small, float32, ONNX Runtime", STEP, 1.0),
)
"""Setup, what it is compared with, the work, and the largest ratio of their times."""


def main() -> int:
    """Runs the benchmark and returns the exit code: 0 if every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for models and bundles, about 5 GB")
    parser.add_argument("--results", type=Path, help="file to write (default: results.json in that folder)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every setup")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each setup")
    options = parser.parse_args()
    calls, sizes = {}, {}
    for name, setup in SETUPS.items():
        print(name, flush=True)
        folder = _made(setup, options.out)
        sizes[name] = ledger(folder).to_json()["totals"]
        calls[name] = calls_of(
            folder, decoder=setup.family == "gpt2", compiled=setup.compiled, threads=options.threads
        )
    times = take_turns(calls, rounds=options.rounds)
    checks = [_check(times, *goal) for goal in GOALS]
    results = {"machine": facts(), "threads": options.threads, "seed": SEED, "rounds": options.rounds}
    results |= {"milliseconds": times, "stored": sizes, "checks": checks}
    written = options.results or options.out / "results.json"
    written.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name, works in times.items():
        shown = ", ".join(f"{work}: {value:.2f} ms" for work, value in works.items())
        print(f"{name}: {shown}, {sizes[name]['stored_bytes'] / 2**20:.1f} MiB")
    for check in checks:
        print(f"[{'ok' if check['ok'] else 'MISSED'}] {check['what']}: {check['found']:.3f} (goal {check['goal']:.3f})")
    return 0 if all(check["ok"] for check in checks) else 1


def _made(setup: Setup, out: Path) -> Path:
    """Makes what a setup runs, unless it is there: a bundle, or an ONNX folder."""
    dense = out / setup.family
    folder = out / (setup.recipe or f"{setup.family}-float32")
    checkpoint = dense if setup.recipe is None else folder / "checkpoint"
    if not checkpoint.is_dir():
        make_checkpoint(setup, dense, checkpoint)
    if not (folder / "onnx").is_dir():
        edgeq.export_onnx(checkpoint, folder / "onnx")
    if not setup.compiled:
        return folder / "onnx"
    if not (folder / "bundle").is_dir():
        context: dict[str, Any] = {"context": CONTEXT} if setup.family == "gpt2" else {}
        edgeq.compile_bundle(folder / "onnx", folder / "bundle", target=load_target("host"), **context)
    return folder / "bundle"


def _check(times: Times, name: str, other: str, work: str, goal: float) -> dict[str, Any]:
    ratio = times[name][work] / times[other][work]
    return {"what": f"{name} / {other}, {work}", "found": ratio, "goal": goal, "ok": ratio <= goal}


if __name__ == "__main__":
    sys.exit(main())
