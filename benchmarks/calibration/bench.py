"""The models and data of the benchmark: which rows there are, and what each measures."""

from __future__ import annotations

import dataclasses
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.quality import accuracy, embeddings, neighbour_share, perplexity, spearman, texts_of
from benchmarks.machine import facts
from edgeq.compress import compress_model
from edgeq.evaluate.data import EvaluationSet, read_evaluation_set, read_rows
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
    "100 steps": {"calibrate": {"distill": {"steps": 100}}},
}
"""What is changed of ``calibrated-w4a8``."""
GPT2 = Path(__file__).parents[2] / "models" / "zoo" / "gpt2-wikitext2"
TRAINING_TEXTS = 6000
"""Lines of WikiText-2's training split, and sentences of SST-2's, that calibration may read."""
GPT2_TOKENS = 16384
CONTEXT = 256
E5_PROMPT = "query: "
E5_EVERY = 3
"""One of so many pairs of the dev split is measured: twelve layers in PyTorch take minutes for all of them."""


def _changed(recipe: Recipe, change: dict[str, Any]) -> Recipe:
    """Returns a recipe with other values of some keys; None takes a table out."""

    def merged(values: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        joined = {
            key: merged(values[key], value) if isinstance(value, dict) and key in values else value
            for key, value in other.items()
        }
        return {key: value for key, value in (values | joined).items() if value is not None}

    return Recipe.model_validate(merged(recipe.model_dump(exclude_none=True), change))


class Bench:
    """Models and data, and what is measured once."""

    def __init__(self, folder: Path, sources: dict[str, Path], data: Path, threads: int) -> None:
        self._folder, self._sources, self._data, self._threads = folder, sources, data, threads
        self._references: dict[str, np.ndarray] = {}

    def cases(self) -> list[tuple[str, Recipe, Path | None]]:
        """Returns name, recipe and calibration texts of every row."""
        found: list[tuple[str, Recipe, Path | None]] = []
        texts: Path | None
        for model in self._sources:
            texts = self.calibration_texts(model)
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
            texts = self.calibration_texts("minilm") if recipe.calibrates else None
            found.append((f"minilm/calibrated-w4a8, {name}", recipe, texts))
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
        return self.quality_of_embeddings(model, embeddings(folder, self.texts(model)))

    def quality_of_embeddings(self, model: str, vectors: np.ndarray) -> dict[str, float]:
        """Compares the embeddings of :meth:`texts` with the scores of the pairs, and with those of the float model."""
        if model not in self._references:
            self._references[model] = embeddings(self._sources[model], self.texts(model))
        reference = self._references[model]
        return {
            "spearman": round(spearman(vectors, self._pairs(model)), 4),
            "neighbours_kept": round(neighbour_share(vectors, reference), 4),
            "cosine_to_float": round(float((vectors * reference).sum(axis=1).mean()), 4),
        }

    def texts(self, model: str) -> list[str]:
        """Returns the texts whose embeddings are measured."""
        return texts_of(self._pairs(model))

    def _pairs(self, model: str) -> EvaluationSet:
        """Returns the pairs of STS-B's dev split as a model reads them."""
        pairs = read_evaluation_set(self._data / "stsb" / "dev.tsv")
        if model != "e5":
            return pairs
        examples = [
            dataclasses.replace(one, first=E5_PROMPT + one.first, second=E5_PROMPT + (one.second or ""))
            for one in pairs.examples[::E5_EVERY]
        ]
        return dataclasses.replace(pairs, examples=examples)

    def calibration_texts(self, model: str) -> Path:
        """Returns the file of texts that a model is calibrated with."""
        makers = {"gpt2": self._articles, "sst2": self._reviews}
        return makers[model]() if model in makers else self._sentences(E5_PROMPT if model == "e5" else "")

    def _sentences(self, prompt: str) -> Path:
        rows = read_rows(self._data / "stsb" / "train.tsv")
        held_out = set(texts_of(read_evaluation_set(self._data / "stsb" / "dev.tsv")))
        found = {cells[column] for _, cells in rows for column in ("sentence1", "sentence2")} - held_out
        file = self._folder / ("prompted.txt" if prompt else "sentences.txt")
        write_text(file, "".join(f"{prompt}{text}\n" for text in sorted(found)))
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
