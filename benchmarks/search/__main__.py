"""``edgeq search`` beside uniform recipes of the same bytes, and whether what it promises holds on other data.

    python -m benchmarks.search --minilm FOLDER --data DATA --work WORK --results FILE [--sst2 FOLDER] [--only NAME ...]

MiniLM is ``all-MiniLM-L6-v2``, searched and measured on STS-B's dev split; ``gpt2-wikitext2`` of the model zoo on the
validation split of WikiText-2; a classifier that ``benchmarks.claims`` trains on SST-2's dev split. The budgets are
the bytes of the uniform calibrated recipes. ``best`` rows search within the bytes of a uniform recipe, ``smaller``
rows within four fifths of them; both compare the two models on the half of the data that the search did not see, by
resampling. Rows that end in "error feedback alone" leave out the distillation on both sides, which is most of the
time; a search has one candidate of each method, all of them within the whole budget. ``promise`` rows search with
other halves each time and round to the nearest level; the model that was found is measured on STS-B's test split,
which no search saw: the promise holds where its loss there lies within the promised interval. A row that is in FILE
already is not repeated; what is searched stays in WORK.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.calibration.bench import GPT2, Bench
from benchmarks.machine import facts
from edgeq.checkpoint import load_checkpoint
from edgeq.compress import compress_model
from edgeq.evaluate.data import read_evaluation_set
from edgeq.files import write_text
from edgeq.ledger import ledger
from edgeq.recipes import load_recipe
from edgeq.search import SearchRequest, search
from edgeq.search.quality import Half, Measured, halves, loss_of, measure
from edgeq.search.report import MethodSet

UNIFORM = ("calibrated-w4a8", "calibrated-w2e4a8", "calibrated-w2a8", "calibrated-w1a8")
KINDS = ("best", "smaller")
ALONE = ", error feedback alone"
SMALLER = 0.8
PROMISES = 20
PROMISED_BYTES = 9_000_000


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--sst2", type=Path, help="classifier of SST-2; without it its rows are left out")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets stsb, sst2 and wikitext2")
    parser.add_argument("--work", type=Path, required=True, help="folder of the searches and models")
    parser.add_argument("--results", type=Path, required=True, help="file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="rows by name, such as minilm/promise/0")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.results.read_text())["rows"] if options.results.is_file() else []
    models = {"minilm": options.minilm, "gpt2": GPT2} | ({} if options.sst2 is None else {"sst2": options.sst2})
    bench = _Bench(models, options.data, options.work)
    for name in bench.names():
        if any(row["name"] == name for row in rows) or (options.only is not None and name not in options.only):
            continue
        began = time.monotonic()
        row = {"name": name, **bench.row(name), "threads": options.threads, "machine": facts()}
        rows.append(row | {"wall_seconds": round(time.monotonic() - began, 1)})
        write_text(options.results, json.dumps({"rows": rows}, indent=1) + "\n")
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "machine"}), flush=True)
    return 0


class _Bench:
    """Models and data."""

    def __init__(self, models: dict[str, Path], data: Path, work: Path) -> None:
        self._models, self._data, self._work = models, data, work
        work.mkdir(parents=True, exist_ok=True)
        self._float: Measured | None = None
        self._texts = Bench(work, models, data, 1).calibration_texts
        self._evaluation = {
            "minilm": data / "stsb" / "dev.tsv",
            "gpt2": data / "wikitext2" / "valid.txt",
            "sst2": data / "sst2" / "dev.tsv",
        }

    def names(self) -> list[str]:
        """Returns the names of all rows."""
        quick, whole = (
            [f"{model}/{kind}/{name}{end}" for model in self._models for name in UNIFORM for kind in KINDS]
            for end in (ALONE, "")
        )
        return [*quick, *(f"minilm/promise/{seed}" for seed in range(PROMISES)), *whole]

    def row(self, name: str) -> dict[str, Any]:
        """Searches and compares."""
        model, kind, which = name.split("/")
        return self._promise(int(which)) if kind == "promise" else self._compared(model, which, kind)

    def _compared(self, model: str, recipe: str, kind: str) -> dict[str, Any]:
        uniform = self._uniform(model, recipe)
        size = ledger(uniform).stored_bytes
        budget = size if kind == "best" else int(SMALLER * size)
        methods: tuple[MethodSet, ...] = ("nearest", "error-feedback")
        methods = methods if recipe.endswith(ALONE) else (*methods, "distill")
        place = self._work / f"{model}-{budget}-{methods[-1]}"
        began = time.process_time()
        found = search(self._request(model, budget, methods=methods, trials=len(methods)), place)
        seconds = time.process_time() - began
        _, held = halves(self._evaluation[model], load_checkpoint(self._models[model]).adapter, seed=0)
        own = place / found.report.chosen.checkpoint
        values = [measure(load_checkpoint(folder), held) for folder in (own, uniform)]
        # What the uniform recipe loses beside the searched one: above 0, the search is better.
        gain = loss_of(values[0], values[1])
        return {
            "budget": budget,
            "uniform_bytes": size,
            "bytes": found.report.chosen.found.bytes,
            "method": found.report.chosen.found.method,
            "search_cpu_seconds": round(seconds, 1),
            "value": round(values[0].value, 4),
            "uniform_value": round(values[1].value, 4),
            "gain": [round(one, 4) for one in (gain.low, gain.value, gain.high)],
        }

    def _promise(self, seed: int) -> dict[str, Any]:
        request = self._request("minilm", PROMISED_BYTES, methods=("nearest",), trials=1, seed=seed)
        began = time.process_time()
        found = search(request, self._work / f"promise-{seed}")
        seconds = time.process_time() - began
        place = self._work / f"promise-{seed}" / found.report.chosen.checkpoint
        unseen = Half(read_evaluation_set(self._data / "stsb" / "sts-test.labelled.tsv"))
        if self._float is None:
            self._float = measure(load_checkpoint(self._models["minilm"]), unseen)
        loss = loss_of(self._float, measure(load_checkpoint(place), unseen))
        promise = found.report.promise
        return {
            "promised": [round(value, 4) for value in (promise.low, promise.loss, promise.high)],
            "found": round(loss.value, 4),
            "search_cpu_seconds": round(seconds, 1),
            "kept": bool(promise.low <= loss.value <= promise.high),
        }

    def _request(self, model: str, budget: int, **changes: Any) -> SearchRequest:
        return SearchRequest(
            source=self._models[model],
            eval_data=self._evaluation[model],
            max_bytes=budget,
            calibration_data=self._texts(model),
            **changes,
        )

    def _uniform(self, model: str, recipe: str) -> Path:
        place = self._work / f"{model}-{recipe}"
        if not place.is_dir():
            found = load_recipe(recipe.removesuffix(ALONE))
            if recipe.endswith(ALONE) and found.calibrate is not None:
                alone = found.calibrate.model_copy(update={"method": ("error-feedback",), "distill": None})
                found = found.model_copy(update={"calibrate": alone})
            compress_model(self._models[model], place, recipe=found, calibration_data=self._texts(model))
        return place


if __name__ == "__main__":
    raise SystemExit(main())
