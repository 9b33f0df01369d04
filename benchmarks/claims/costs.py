"""What the models of the tables cost to run: multiply-accumulates, and milliseconds measured in turns.

    python -m benchmarks.claims.costs --runs RUNS

Exports and compiles for this machine the first finished run of every row, and the float teachers, which ONNX Runtime
runs as well; one thread each. Time depends on the shapes, not on what was learned: where RUNS lacks the checkpoint of a
run, another is made by a step of training on a few made-up words. Writes ``costs.json`` beside the tables, which
``python -m benchmarks.claims.quality`` puts into its lists. What lies in RUNS already is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import edgeq
from benchmarks.claims import measure
from benchmarks.claims.claim import Claim
from benchmarks.claims.measure import Places
from benchmarks.claims.queue import RECORDS, RESULTS, TABLES
from benchmarks.claims.records import read_records
from benchmarks.claims.setting import describe_setting
from benchmarks.factors.calls import CONTEXT, SEED, Call, calls_of, onnx_input, take_turns, text_ids
from benchmarks.factors.multiply_adds import count_multiply_adds
from edgeq.compress import compress_model
from edgeq.files import write_text
from edgeq.recipes import TrainingRequest, load_recipe
from edgeq.targets.builtin.target import load_target

THREADS = 1
COSTS = "costs.json"
TEACHERS = {"sst2": measure.TEACHERS["sst2"], "wikitext2": measure.ZOO_TEACHER}
"""Names of the float models by task."""
BASELINE = "ONNX Runtime"
_MADE_UP = {
    "sst2": (".tsv", "sentence\tlabel\n" + "a good movie\t1\nthe lazy dog\t0\n" * 64),
    "wikitext2": (".txt", "the quick brown fox jumps over the lazy dog\n" * 4096),
}
"""Ending of the name, and content, of a file to train on for a step."""
_ONE_STEP = 1e-6
"""Epochs; less than a step is a step."""


@dataclasses.dataclass(frozen=True)
class Model:
    """One model that is measured.

    Attributes:
        name: Name of the run, or of the teacher.
        task: Its task.
        checkpoint: Folder of its checkpoint.
        claim: The run, by which a checkpoint can be made; None for a teacher.
    """

    name: str
    task: str
    checkpoint: Path
    claim: Claim | None = None

    @property
    def decoder(self) -> bool:
        """Whether it makes text."""
        return self.task == "wikitext2"


def models_of(runs: Path, results: Path) -> list[Model]:
    """Returns the teachers, and the first finished run of every row."""
    places = Places(data=runs, runs=runs)  # no data are read
    found = [Model(name, task, places.source(task)) for task, name in TEACHERS.items()]
    for table in (make(1.0) for make in TABLES.values()):
        finished = read_records(results / RECORDS, table.claims)
        for row in table.rows:
            claims = [claim for claim in row.claims if "failed" not in finished.get(claim.name, {"failed": ""})]
            if row.claims[0].task not in TEACHERS:  # the models of STS-B are those of SST-2 with another head
                continue
            found += [
                Model(claim.name, claim.task, places.runs / claim.name / "checkpoint", claim) for claim in claims[:1]
            ]
    return found


def main() -> int:
    """Makes what is missing, measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, with their checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and records")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each model")
    options = parser.parse_args()
    models = models_of(options.runs, options.results)
    ids = text_ids()
    calls: dict[str, dict[str, Call]] = {}
    products: dict[str, int] = {}
    for model in models:
        print(model.name, flush=True)
        onnx, bundle = _made(model, options.runs)
        products[model.name] = count_multiply_adds(onnx / "model.onnx", lambda entry: onnx_input(entry, ids, past=0))
        calls[model.name] = calls_of(bundle, decoder=model.decoder, compiled=True, threads=THREADS)
        if model.name in TEACHERS.values():
            baseline = calls_of(onnx, decoder=model.decoder, compiled=False, threads=THREADS)
            calls[f"{model.name}, {BASELINE}"] = baseline
    times = take_turns(calls, rounds=options.rounds)
    result: dict[str, Any] = {"setting": describe_setting() | {"threads": THREADS}, "seed": SEED}
    result |= {"rounds": options.rounds, "multiply_adds": products, "milliseconds": times}
    write_text(options.results / COSTS, json.dumps(result, indent=1) + "\n")
    print(options.results / COSTS)
    return 0


def _made(model: Model, runs: Path) -> tuple[Path, Path]:
    """Makes the ONNX folder and the bundle of a model unless they are there."""
    folder = runs / "costs" / model.name
    onnx, bundle = folder / "onnx", folder / "bundle"
    if not onnx.is_dir():
        checkpoint = model.checkpoint
        if model.claim is not None and not checkpoint.is_dir():
            checkpoint = folder / "checkpoint"
            _make_untrained(model.claim, Places(data=runs, runs=runs), checkpoint)
        edgeq.export_onnx(checkpoint, onnx)
    if not bundle.is_dir():
        context: dict[str, Any] = {"context": CONTEXT} if model.decoder else {}
        edgeq.compile_bundle(onnx, bundle, target=load_target("host"), **context)
    return onnx, bundle


def _make_untrained(claim: Claim, places: Places, checkpoint: Path) -> None:
    """Makes the checkpoint of a run by as little training as there is."""
    if checkpoint.is_dir():
        return
    folder = checkpoint.parent
    write_text(folder / "recipe.toml", claim.recipe_text)
    suffix, words = _MADE_UP[claim.task]
    write_text(folder / f"words{suffix}", words)
    request = TrainingRequest(
        train_data=folder / f"words{suffix}", epochs=_ONE_STEP, seed=SEED, folder=folder / "training"
    )
    recipe = load_recipe(folder / "recipe.toml")
    compress_model(places.source(claim.task), checkpoint, recipe=recipe, training=request)
    shutil.rmtree(folder / "training")


if __name__ == "__main__":
    sys.exit(main())
