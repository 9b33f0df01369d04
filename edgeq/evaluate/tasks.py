"""Measures a model on a task: Spearman correlation of similarities, or accuracy of labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.data import EvaluationSet
from edgeq.formats.json_file import read_json, read_json_object
from edgeq.progress import Progress, silent

Encode = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""A model on some backend: ``input_ids, attention_mask, token_type_ids`` (int64, ``[batch, sequence]``)
to float32 outputs by name."""

Pooling = Literal["mean", "cls"]
_DEFAULT_MAX_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A measured result.

    Attributes:
        metric: ``spearman`` or ``accuracy``.
        value: The metric: a correlation in -1..1, or a share in 0..1.
        count: Number of examples.
        predictions: Cosine similarities (float64), or label numbers (int64), one an example.
        pearson: Pearson correlation, for similarities.
    """

    metric: Literal["spearman", "accuracy"]
    value: float
    count: int
    predictions: np.ndarray
    pearson: float | None = None


def evaluate(
    encode: Encode,
    tokenizer: Any,
    data: EvaluationSet,
    *,
    pooling: Pooling = "mean",
    labels: Sequence[str] = (),
    max_length: int = _DEFAULT_MAX_LENGTH,
    batch_size: int = 32,
    progress: Progress = silent,
) -> Evaluation:
    """Runs a model over an evaluation set.

    Args:
        encode: The model.
        tokenizer: A ``transformers`` tokenizer.
        data: The examples.
        pooling: How token states become a sentence embedding; used for similarities.
        labels: A classifier's label names in the order of its logits; used for classification.
        max_length: Longer texts are cut to this many tokens.
        batch_size: Texts in one batch; they are sorted by length, so that little is padded.
        progress: Told how many batches are done.

    Raises:
        UsageError: If the data are for another kind of model, or hold an unknown label.
    """
    run = _Batches(encode, tokenizer, max_length, batch_size, progress)
    if data.kind == "similarity":
        return _similarity(run, data, pooling)
    return _accuracy(run, data, list(labels))


def pooling_of(folder: Path) -> tuple[Pooling, bool]:
    """Reads how a checkpoint's token states become a sentence embedding.

    Args:
        folder: A checkpoint folder, with or without sentence-transformers files.

    Returns:
        The pooling, and whether embeddings are scaled to length 1. Without such files: mean, True.

    Raises:
        FormatError: If the files are damaged.
        UsageError: If they ask for another kind of pooling.
    """
    pooling_file, modules_file = folder / "1_Pooling" / "config.json", folder / "modules.json"
    try:
        if not pooling_file.is_file():
            return "mean", True
        options = read_json_object(pooling_file)
        modules = read_json(modules_file) if modules_file.is_file() else []
        chosen = [key.removeprefix("pooling_mode_") for key, on in options.items() if on is True]
        normalize = any(str(module["type"]).endswith("Normalize") for module in modules)
    except (KeyError, TypeError, AttributeError):
        raise FormatError(
            f"{pooling_file} or {modules_file} is damaged: it is not what it should be"
        ) from None
    modes: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}
    known = [modes[mode] for mode in chosen if mode in modes]
    if len(known) != 1 or any(mode not in modes and mode != "include_prompt" for mode in chosen):
        raise UsageError(
            f"{pooling_file} asks for {', '.join(chosen) or 'no pooling'}; mean_tokens or cls_token work"
        )
    return known[0], normalize


def pool(states: np.ndarray, attention_mask: np.ndarray, pooling: Pooling) -> np.ndarray:
    """Turns token states into one vector a text.

    Args:
        states: float32, ``[batch, sequence, width]``.
        attention_mask: int64, ``[batch, sequence]``.
        pooling: ``mean`` over the tokens that are not padding, or ``cls`` for the first one.

    Returns:
        float32, ``[batch, width]``.
    """
    if pooling == "cls":
        return states[:, 0]
    weights = attention_mask[:, :, None].astype(np.float32)
    return (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Runs texts through the model in batches of similar length, and puts results back in order."""

    encode: Encode
    tokenizer: Any
    max_length: int
    batch_size: int
    progress: Progress

    def __call__(
        self,
        texts: list[tuple[str, str | None]],
        reduce: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray],
    ) -> np.ndarray:
        encoded = [self._tokens(*text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(encoded[index]["input_ids"]))
        results: list[np.ndarray] = [np.empty(0)] * len(texts)
        starts = range(0, len(order), self.batch_size)
        for done, start in enumerate(starts):
            self.progress("evaluating", done, len(starts))
            chosen = order[start : start + self.batch_size]
            ids, mask, types = self._pad([encoded[index] for index in chosen])
            rows = reduce(self.encode(ids, mask, types), mask)
            for index, row in zip(chosen, rows, strict=True):
                results[index] = row
        self.progress("evaluating", len(starts), len(starts))
        return np.stack(results)

    def _tokens(self, first: str, second: str | None) -> dict[str, list[int]]:
        tokens: dict[str, list[int]] = self.tokenizer(
            first, second, truncation=True, max_length=self.max_length, return_token_type_ids=True
        )
        return tokens

    def _pad(self, rows: list[dict[str, list[int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), longest), self.tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        for line, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[line, :length] = row["input_ids"]
            mask[line, :length] = 1
            types[line, :length] = row["token_type_ids"]
        return ids, mask, types


def _similarity(run: _Batches, data: EvaluationSet, pooling: Pooling) -> Evaluation:
    def reduce(outputs: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
        if "last_hidden_state" not in outputs:
            raise UsageError(
                f"{data.path} grades similarity, which needs an embedding model, not a classifier"
            )
        return pool(outputs["last_hidden_state"], mask, pooling)

    if len(data.examples) < 2:
        raise UsageError(f"{data.path} holds one example; a correlation needs two or more")
    texts = sorted({text for e in data.examples for text in (e.first, e.second or "")})
    vectors = run([(text, None) for text in texts], reduce).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    place = {text: index for index, text in enumerate(texts)}
    first = vectors[[place[e.first] for e in data.examples]]
    second = vectors[[place[e.second or ""] for e in data.examples]]
    cosines = (first * second).sum(axis=1)
    scores = np.array([e.target for e in data.examples], np.float64)
    if np.ptp(scores) == 0:
        raise UsageError(f"{data.path}: all scores are {scores[0]}; a correlation needs different ones")
    if not np.isfinite(cosines).all() or np.ptp(cosines) == 0:
        return Evaluation("spearman", 0.0, len(scores), cosines, pearson=0.0)
    spearman = float(stats.spearmanr(cosines, scores).statistic)
    return Evaluation(
        "spearman", spearman, len(scores), cosines, float(stats.pearsonr(cosines, scores).statistic)
    )


def _accuracy(run: _Batches, data: EvaluationSet, labels: list[str]) -> Evaluation:
    def reduce(outputs: dict[str, np.ndarray], _: np.ndarray) -> np.ndarray:
        if "logits" not in outputs:
            raise UsageError(f"{data.path} holds labels, which need a classifier, not an embedding model")
        return outputs["logits"].argmax(axis=-1)

    targets = np.array([_label_number(data.path, str(e.target), labels) for e in data.examples], np.int64)
    predictions = run([(e.first, e.second) for e in data.examples], reduce).astype(np.int64)
    value = float((predictions == targets).mean())
    return Evaluation("accuracy", value, len(targets), predictions)


def _label_number(path: Path, label: str, labels: list[str]) -> int:
    """A file names a label, or gives its number."""
    if label in labels:
        return labels.index(label)
    alike = [index for index, name in enumerate(labels) if name.casefold() == label.casefold()]
    if len(alike) == 1:  # "entailment" of a file is "ENTAILMENT" of a model
        return alike[0]
    if label.isascii() and label.isdigit() and int(label) < len(labels):
        return int(label)
    raise UsageError(
        f"{path}: label {label!r} is none of the model's labels ({', '.join(labels) or 'it has none'})"
    )
