"""Calibrated recipes beside rounding to the nearest level at the same stored bytes, on MiniLM, a classifier and GPT-2.

    python -m benchmarks.calibration --minilm FOLDER --data DATA --results FILE [--sst2 FOLDER] [--only NAME ...]

MiniLM is ``all-MiniLM-L6-v2``, calibrated with the sentences of STS-B's training split without their scores and
measured on the dev split: Spearman correlation, and the share of its texts that keep their nearest neighbour of the
float model. ``gpt2-wikitext2`` of the model zoo is calibrated with WikiText-2's training split and measured on the
first tokens of the validation split. The classifier is the teacher of SST-2 that the queue of ``benchmarks.claims``
trains, calibrated with 6,000 sentences of the training split without their labels and measured by its accuracy on the
dev split. Rows with "default texts" were calibrated with what comes with edgeq. The last rows change one thing of
``calibrated-w4a8``, or round to 8 bits: what stands between it and its goal. DATA holds the folders ``stsb``,
``sst2`` and ``wikitext2``. A row that is in FILE already, of the same recipe and threads, is not repeated.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.calibration.quality import accuracy, embeddings, neighbour_share, perplexity, spearman, texts_of
from benchmarks.machine import facts
from edgeq.compress import compress_model
from edgeq.evaluate.data import read_evaluation_set, read_rows
from edgeq.files import write_text
from edgeq.ledger import ledger
from edgeq.recipes import Recipe, load_recipe

RECIPES = ("calibrated-w4a8", "calibrated-w2e4a8", "calibrated-w2a8", "calibrated-w1a8")
VARIANTS: dict[str, dict[str, Any]] = {
    "8 bits, nearest": {"weights": {"bits": 8}, "embeddings": {"bits": 8}, "calibrate": None},
    "weights of 8 bits, nearest": {"weights": {"bits": 8}, "calibrate": None},
    "tables of 8 bits, nearest": {"embeddings": {"bits": 8}, "calibrate": None},
    "error feedback alone": {"calibrate": {"method": ("error-feedback",), "distill": None}},
    "tables of 8 bits": {"embeddings": {"bits": 8}},
    "300 steps": {"calibrate": {"distill": {"steps": 300}}},
}
"""What is changed of ``calibrated-w4a8``."""
GPT2 = Path(__file__).parents[2] / "models" / "zoo" / "gpt2-wikitext2"
TRAINING_TEXTS = 6000
"""Lines of WikiText-2's training split, and sentences of SST-2's, that calibration may read."""
GPT2_TOKENS = 16384
CONTEXT = 256


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--sst2", type=Path, help="classifier of SST-2; without it its rows are left out")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--results", type=Path, required=True, help="file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="rows by name, such as minilm/calibrated-w4a8")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.results.read_text())["rows"] if options.results.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        sources = {"minilm": options.minilm, "gpt2": GPT2} | ({"sst2": options.sst2} if options.sst2 else {})
        bench = _Bench(Path(folder), sources, options.data, options.threads)
        for name, recipe, calibration in bench.cases():
            if options.only is not None and name not in options.only:
                continue
            done = [(row["name"], row["recipe_sha256"], row["threads"]) for row in rows]
            if (name, recipe.sha256, options.threads) in done:
                continue
            row = bench.row(name, recipe, calibration)
            rows = [other for other in rows if other["name"] != name] + [row]
            write_text(options.results, json.dumps({"rows": rows}, indent=1) + "\n")
            print(json.dumps({key: row[key] for key in ("name", "quality", "bytes", "cpu_seconds")}))
    return 0


def _changed(recipe: Recipe, change: dict[str, Any]) -> Recipe:
    """Returns a recipe with other values of some keys; None takes a table out."""

    def merged(values: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        joined = {
            key: merged(values[key], value) if isinstance(value, dict) and key in values else value
            for key, value in other.items()
        }
        return {key: value for key, value in (values | joined).items() if value is not None}

    return Recipe.model_validate(merged(recipe.model_dump(exclude_none=True), change))


class _Bench:
    """Models and data, and what is measured once."""

    def __init__(self, folder: Path, sources: dict[str, Path], data: Path, threads: int) -> None:
        self._folder, self._sources, self._data, self._threads = folder, sources, data, threads
        self._dev = read_evaluation_set(data / "stsb" / "dev.tsv")
        self._reference: np.ndarray | None = None

    def cases(self) -> list[tuple[str, Recipe, Path | None]]:
        """Returns name, recipe and calibration texts of every row."""
        found: list[tuple[str, Recipe, Path | None]] = []
        texts_of_model = {"minilm": self._sentences, "gpt2": self._articles, "sst2": self._reviews}
        for model in self._sources:
            texts = texts_of_model[model]()
            found.append((f"{model}/float", load_recipe("ptq-w8a8"), None))
            for name in RECIPES:
                recipe = load_recipe(name)
                plain = recipe.model_copy(update={"calibrate": None, "name": f"nearest-{name}"})
                found.append((f"{model}/{plain.name}", plain, None))
                found.append((f"{model}/{name}", recipe, texts))
        found.append(("minilm/calibrated-w2e4a8, default texts", load_recipe("calibrated-w2e4a8"), None))
        found.append(("minilm/calibrated-w4a8, default texts", load_recipe("calibrated-w4a8"), None))
        for name, change in VARIANTS.items():
            recipe = _changed(load_recipe("calibrated-w4a8"), change)
            found.append((f"minilm/calibrated-w4a8, {name}", recipe, self._sentences() if recipe.calibrates else None))
        return found

    def row(self, name: str, recipe: Recipe, calibration: Path | None) -> dict[str, Any]:
        """Compresses and measures."""
        model = name.split("/")[0]
        source = self._sources[model]
        out = self._folder / "out"
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        if name.endswith("/float"):
            out = source
        else:
            compress_model(source, out, recipe=recipe, calibration_data=calibration)
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "name": name,
            "recipe_sha256": recipe.sha256,
            "threads": self._threads,
            "seed": 0 if recipe.calibrate is None else recipe.calibrate.seed,
            "wall_seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(used, 1),
            "bytes": ledger(out).to_json()["totals"]["stored_bytes"],
            "quality": self._quality(model, out),
            "machine": facts(),
        }

    def _quality(self, model: str, folder: Path) -> dict[str, float]:
        if model == "gpt2":
            text = self._data / "wikitext2" / "valid.txt"
            return {"perplexity": round(perplexity(folder, text, tokens=GPT2_TOKENS, context=CONTEXT), 3)}
        if model == "sst2":
            return {"accuracy": round(accuracy(folder, self._data / "sst2" / "dev.tsv"), 4)}
        texts = texts_of(self._dev)
        minilm = self._sources["minilm"]
        if self._reference is None:
            self._reference = embeddings(minilm, texts)
        vectors = self._reference if folder == minilm else embeddings(folder, texts)
        return {
            "spearman": round(spearman(vectors, self._dev), 4),
            "neighbours_kept": round(neighbour_share(vectors, self._reference), 4),
            "cosine_to_float": round(float((vectors * self._reference).sum(axis=1).mean()), 4),
        }

    def _sentences(self) -> Path:
        rows = read_rows(self._data / "stsb" / "train.tsv")
        held_out = set(texts_of(self._dev))
        found = {cells[column] for _, cells in rows for column in ("sentence1", "sentence2")} - held_out
        file = self._folder / "sentences.txt"
        write_text(file, "\n".join(sorted(found)) + "\n")
        return file

    def _reviews(self) -> Path:
        rows = read_rows(self._data / "sst2" / "train.tsv")
        held_out = {example.first.strip() for example in read_evaluation_set(self._data / "sst2" / "dev.tsv").examples}
        texts = sorted({cells["sentence"].strip() for _, cells in rows} - held_out)
        file = self._folder / "reviews.txt"
        write_text(file, "".join(text + "\n" for text in texts[:: len(texts) // TRAINING_TEXTS]))
        return file

    def _articles(self) -> Path:
        lines = (self._data / "wikitext2" / "train.txt").read_text(encoding="utf-8").split("\n")[:TRAINING_TEXTS]
        file = self._folder / "articles.txt"
        write_text(file, "\n".join(lines))
        return file


if __name__ == "__main__":
    raise SystemExit(main())
