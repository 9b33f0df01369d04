"""edgeq beside other engines: the same models, machine, threads and minutes.

    python -m benchmarks.speed.run --threads 2 --out benchmarks/speed/results.json
    python -m benchmarks.speed.run --smoke        # tiny models, shows that everything works

Each engine is a process of its own; they take turns, and what counts is the median over rounds of the ratio of two
engines in the same round. Every output is compared with PyTorch's float32 (cosine), so that nobody is fast at
something else; edgeq's compressed models differ from it by their compression. A peer that cannot be installed or
cannot run a model is listed with its reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.speed.contest import Contestant, Outcome, compete
from benchmarks.speed.works import SMOKE_WORKS, WORKS, Work
from edgeq.files import write_text

EDGEQ = "edgeq"
REFERENCE = "PyTorch float32"
PEERS = (
    (REFERENCE, "torch_engine.py", "float32"),
    ("PyTorch int8 dynamic", "torch_engine.py", "int8"),
    ("ONNX Runtime float32", "onnxruntime_engine.py", "float32"),
    ("ONNX Runtime int8 dynamic", "onnxruntime_engine.py", "int8"),
    ("ONNX Runtime MatMulNBits 8", "onnxruntime_engine.py", "nbits8"),
    ("ONNX Runtime MatMulNBits 4", "onnxruntime_engine.py", "nbits4"),
    ("ONNX Runtime MatMulNBits 2", "onnxruntime_engine.py", "nbits2"),
)
"""Name, script and variant of every peer."""


def main() -> int:
    """Measures, prints the tables and writes the file."""
    options = _arguments()
    works = [work for work in (SMOKE_WORKS if options.smoke else WORKS) if options.only in work.name]
    rounds = 3 if options.smoke else options.rounds
    result: dict[str, Any] = {"machine": facts(), "threads": options.threads, "rounds": rounds, "works": []}
    for work in works:
        outcomes = _measure(work, options, rounds)
        result["works"].append({"work": dataclasses.asdict(work), "engines": _rows(outcomes)})
        print(f"\n### {work.name}, {options.threads} threads\n\n{table(result['works'][-1])}", flush=True)
        if options.out is not None:
            write_text(options.out, json.dumps(result, indent=1) + "\n")
    return 0


def table(entry: dict[str, Any]) -> str:
    """Returns one work's engines as a Markdown table, fastest first."""
    lines = ["| engine | median | edgeq is | like float32 |", "| --- | --- | --- | --- |"]
    present = [row for row in entry["engines"] if not row["missing"]]
    for row in sorted(present, key=lambda row: row["median"]):
        claim = "" if row["name"] == EDGEQ else row["sentence"]
        lines.append(f"| {row['name']} | {row['median'] * 1e3:.2f} ms | {claim} | {row['similarity']:.4f} |")
    lines += [f"| {row['name']} | missing | {row['missing']} | |" for row in entry["engines"] if row["missing"]]
    return "\n".join(lines)


def _measure(work: Work, options: argparse.Namespace, rounds: int) -> dict[str, Outcome]:
    from benchmarks.speed import prepare

    folders = {
        "torch_engine.py": prepare.float_checkpoint(work.model, options.models),
        "onnxruntime_engine.py": prepare.float_onnx(work.model, options.models),
    }
    contestants = [
        Contestant(name, script, variant, options.peers_python, folders[script]) for name, script, variant in PEERS
    ]
    own = Contestant(EDGEQ, "edgeq_engine.py", work.recipe, Path(sys.executable), prepare.bundle(work, options.models))
    config = json.loads((folders["torch_engine.py"] / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="edgeq-speed-") as scratch:
        return compete(
            [*contestants, own], work, threads=options.threads, rounds=rounds, limit=config["vocab_size"],
            scratch=Path(scratch),
        )  # fmt: skip


def _rows(outcomes: dict[str, Outcome]) -> Sequence[dict[str, Any]]:
    import numpy as np

    from edgeq.targets.timing import paired_speedup

    own, rows = outcomes[EDGEQ], []
    for name, outcome in outcomes.items():
        row: dict[str, Any] = {"name": name, **dataclasses.asdict(outcome)}
        if not outcome.missing:
            row["median"] = float(np.median(outcome.rounds))
        if not outcome.missing and not own.missing and name != EDGEQ:
            speedup = paired_speedup(outcome.rounds, own.rounds)
            row |= {"ratio": speedup.ratio, "low": speedup.low, "high": speedup.high, "sentence": speedup.sentence()}
        rows.append(row)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each engine; fewer than 6 support no claim")
    parser.add_argument("--only", default="", help="part of the names of the works that are wanted")
    parser.add_argument("--models", type=Path, default=Path("bench-output/speed"), help="folder where models are kept")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="interpreter with the peers")
    parser.add_argument("--smoke", action="store_true", help="tiny models, three rounds")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
