"""Measures a model on a task: Spearman correlation of similarities, or accuracy of labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from edgeq.errors import UsageError
from edgeq.evaluate.data import EvaluationSet
from edgeq.formats.sentence_model import SentenceModel
from edgeq.progress import Progress, silent

Encode = Callable[..., dict[str, np.ndarray]]
"""A model on some backend: ``input_ids, attention_mask, token_type_ids`` (int64, ``[batch, sequence]``)
to float32 outputs by name. A model whose pooling leaves out its prompt also gets ``pooling_mask``."""

_EMBEDDING = "sentence_embedding"
_DEFAULT_MAX_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A measured result.

    Attributes:
        metric: ``spearman`` or ``accuracy``.
        value: The metric: a correlation in -1..1, or a share in 0..1.
        count: Number of examples.
        predictions: Similarities (float64), or label numbers (int64), one an example.
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
    sentence: SentenceModel | None = None,
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
        sentence: What stands before and behind the model: the prompt of every text, the longest text, how embeddings
            are compared. None for a model that is no sentence model.
        labels: A classifier's label names in the order of its logits; used for classification.
        max_length: Longer texts are cut to this many tokens.
        batch_size: Texts in one batch; they are sorted by length, so that little is padded.
        progress: Told how many batches are done.

    Raises:
        UsageError: If the data are for another kind of model, or hold an unknown label.
    """
    if sentence is not None and sentence.max_tokens is not None:
        max_length = min(max_length, sentence.max_tokens)
    prompt = _Prompt.of(sentence, tokenizer)
    run = _Batches(encode, tokenizer, max_length, batch_size, progress, prompt)
    if data.kind == "similarity":
        return _similarity(run, data, sentence.similarity if sentence is not None else "cosine")
    return _accuracy(run, data, list(labels))


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """What is put before every text, and how many tokens of it the pooling leaves out."""

    text: str = ""
    excluded: int = 0

    @classmethod
    def of(cls, sentence: SentenceModel | None, tokenizer: Any) -> _Prompt:
        """Returns the default prompt of a sentence model."""
        name = sentence.default_prompt if sentence is not None else None
        text = sentence.prompts.get(name, "") if sentence is not None and name is not None else ""
        pooling = sentence.pooling if sentence is not None else None
        if not text or pooling is None or pooling.include_prompt:
            return cls(text)
        ids = tokenizer(text)["input_ids"]
        return cls(text, len(ids) - (ids[-1] in tokenizer.all_special_ids))


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Runs texts through the model in batches of similar length, and puts results back in order."""

    encode: Encode
    tokenizer: Any
    max_length: int
    batch_size: int
    progress: Progress
    prompt: _Prompt

    def __call__(
        self,
        texts: list[tuple[str, str | None]],
        reduce: Callable[[dict[str, np.ndarray]], np.ndarray],
    ) -> np.ndarray:
        encoded = [self._tokens(*text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(encoded[index]["input_ids"]))
        results: list[np.ndarray] = [np.empty(0)] * len(texts)
        starts = range(0, len(order), self.batch_size)
        for done, start in enumerate(starts):
            self.progress("evaluating", done, len(starts))
            chosen = order[start : start + self.batch_size]
            ids, mask, types = self._pad([encoded[index] for index in chosen])
            rows = reduce(self._run(ids, mask, types))
            for index, row in zip(chosen, rows, strict=True):
                results[index] = row
        self.progress("evaluating", len(starts), len(starts))
        return np.stack(results)

    def _run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, np.ndarray]:
        if not self.prompt.excluded:
            return self.encode(ids, mask, types)
        kept = np.ones_like(mask)
        kept[:, : self.prompt.excluded] = 0
        return self.encode(ids, mask, types, pooling_mask=kept)

    def _tokens(self, first: str, second: str | None) -> dict[str, list[int]]:
        tokens: dict[str, list[int]] = self.tokenizer(
            self.prompt.text + first, second, truncation=True, max_length=self.max_length, return_token_type_ids=True
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


def _similarity(run: _Batches, data: EvaluationSet, similarity: str) -> Evaluation:
    def reduce(outputs: dict[str, np.ndarray]) -> np.ndarray:
        if _EMBEDDING not in outputs:
            raise UsageError(
                f"{data.path} grades similarity, which needs an embedding model, not a classifier"
            )
        return outputs[_EMBEDDING]

    if len(data.examples) < 2:
        raise UsageError(f"{data.path} holds one example; a correlation needs two or more")
    texts = sorted({text for e in data.examples for text in (e.first, e.second or "")})
    vectors = run([(text, None) for text in texts], reduce).astype(np.float64)
    place = {text: index for index, text in enumerate(texts)}
    first = vectors[[place[e.first] for e in data.examples]]
    second = vectors[[place[e.second or ""] for e in data.examples]]
    found = similarities(first, second, similarity)
    scores = np.array([e.target for e in data.examples], np.float64)
    if np.ptp(scores) == 0:
        raise UsageError(f"{data.path}: all scores are {scores[0]}; a correlation needs different ones")
    if not np.isfinite(found).all() or np.ptp(found) == 0:
        return Evaluation("spearman", 0.0, len(scores), found, pearson=0.0)
    spearman = float(stats.spearmanr(found, scores).statistic)
    return Evaluation("spearman", spearman, len(scores), found, float(stats.pearsonr(found, scores).statistic))


def similarities(first: np.ndarray, second: np.ndarray, similarity: str) -> np.ndarray:
    """Compares embeddings row by row, higher for those that are more alike.

    Args:
        first: float64 ``[rows, width]``.
        second: The same.
        similarity: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``; distances count negative.

    Returns:
        float64 ``[rows]``.
    """
    if similarity == "euclidean":
        return np.asarray(-np.linalg.norm(first - second, axis=1))
    if similarity == "manhattan":
        return np.asarray(-np.abs(first - second).sum(axis=1))
    products = (first * second).sum(axis=1)
    if similarity == "dot":
        return np.asarray(products)
    lengths = [np.maximum(np.linalg.norm(vectors, axis=1), 1e-12) for vectors in (first, second)]
    return np.asarray(products / (lengths[0] * lengths[1]))


def _accuracy(run: _Batches, data: EvaluationSet, labels: list[str]) -> Evaluation:
    def reduce(outputs: dict[str, np.ndarray]) -> np.ndarray:
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
