"""One stage of one model, in a process of its own, so that its memory is its own.

Prints one JSON object with what it found::

    python -m benchmarks.true_size.stage gpt2-small export FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = "ptq-w2e2a8"
NEW_TOKENS = 128
PROMPT = 33
CONTEXTS = (100, 1000)
ROUNDS = 60


def create(name: str, folder: Path) -> dict[str, Any]:
    """The float checkpoint, with random weights."""
    from benchmarks.true_size.models import SEED, save_random

    return {"parameters": save_random(name, folder / "float"), "seed": SEED}


def compress(_name: str, folder: Path) -> dict[str, Any]:
    """The compressed checkpoint, and where its bytes are."""
    from edgeq.compress import compress_model
    from edgeq.ledger import ledger

    compress_model(folder / "float", folder / "checkpoint", recipe=RECIPE)
    return {"recipe": RECIPE, **ledger(folder / "checkpoint").to_json()["totals"]}


def export(_name: str, folder: Path) -> dict[str, Any]:
    """The ONNX folder."""
    from edgeq.export.exporter import export_onnx

    export_onnx(folder / "checkpoint", folder / "onnx")
    return {"bytes": sum(file.stat().st_size for file in (folder / "onnx").iterdir())}


def compile_for_host(_name: str, folder: Path) -> dict[str, Any]:
    """The bundle for this machine, with the whole context."""
    from edgeq.ledger import ledger
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.writer import compile_bundle

    out = compile_bundle(folder / "onnx", folder / "bundles" / "host", target=load_target("host"))
    return {key: ledger(out).to_json()["totals"][key] for key in ("stored_bytes", "folder_bytes")}


def parity(_name: str, folder: Path) -> dict[str, Any]:
    """Every stage against PyTorch."""
    from edgeq.parity.run import run_parity

    report = run_parity(folder)
    breaches = [dataclasses.asdict(check) for check in report.checks if not check.passed]
    return {"passed": report.passed, "checks": len(report.checks), "breaches": breaches}


def generate(name: str, folder: Path) -> dict[str, Any]:
    """Greedy tokens, alone and in a batch, and the time of a step at two lengths of the context."""
    import numpy as np

    import edgeq
    from benchmarks.true_size.models import MODELS

    bundle = edgeq.load(folder / "bundles" / "host")
    generator = np.random.default_rng(0)
    texts = [generator.integers(3, 50000, PROMPT - 7 * row).tolist() for row in range(4)]
    make = _rewritten if MODELS[name].reads_source else _continued
    alone, seconds = make(bundle, texts[:1])
    together, _ = make(bundle, texts)
    return {
        "threads": bundle.threads,
        "tokens": len(alone[0]),
        "tokens_per_second": len(alone[0]) / seconds,
        "a_batch_gives_the_tokens_of_a_text_alone": together[0] == alone[0],
        **_step_times(bundle),
    }


def _continued(bundle: Any, texts: list[list[int]]) -> tuple[list[list[int]], float]:
    generation = bundle.generate(texts, max_new_tokens=NEW_TOKENS, ignore_end=True)
    ids = [result.ids for result in generation.results()]
    return ids, generation.speed.prompt_seconds + generation.speed.seconds


def _rewritten(bundle: Any, texts: list[list[int]]) -> tuple[list[list[int]], float]:
    start = time.perf_counter()
    results = bundle.rewrite(texts, max_new_tokens=NEW_TOKENS, ignore_end=True)
    return [result.ids for result in results], time.perf_counter() - start


def _step_times(bundle: Any) -> dict[str, Any]:
    """Steps at both lengths in turn, so that whatever else the machine does meets both."""
    from edgeq.targets.devices.workload import make_workload

    work = {length: make_workload(bundle, batch=1, sequence=length) for length in CONTEXTS}
    seconds: dict[int, list[float]] = {length: [] for length in CONTEXTS}
    for turn in range(ROUNDS + 3):
        for length, call in work.items():
            start = time.perf_counter()
            bundle.run(call.inputs, state=call.state)
            if turn >= 3:  # the first ones bring weights and caches into memory
                seconds[length].append(time.perf_counter() - start)
    short, long = (min(seconds[length]) for length in CONTEXTS)
    medians = {f"step_ms_at_{length}_median": 1e3 * statistics.median(seconds[length]) for length in CONTEXTS}
    times = {f"step_ms_at_{CONTEXTS[0]}": 1e3 * short, f"step_ms_at_{CONTEXTS[1]}": 1e3 * long}
    return {**times, **medians, "step_ratio": long / short}


STAGES: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "create": create,
    "compress": compress,
    "export": export,
    "compile": compile_for_host,
    "parity": parity,
    "generate": generate,
}
"""In the order in which they run."""


if __name__ == "__main__":
    model, stage, place = sys.argv[1:]
    print(json.dumps(STAGES[stage](model, Path(place))))
