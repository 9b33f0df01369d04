"""Pairs of texts with a score: embeddings that are compared, or a model that grades the pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeq.errors import UsageError
from edgeq.evaluate.batches import Batches
from edgeq.evaluate.evaluation import Evaluation, Meaning
from edgeq.evaluate.metrics import pearson

if TYPE_CHECKING:
    from edgeq.evaluate.data import EvaluationSet

EMBEDDING = "sentence_embedding"


def measure_similarity(run: Batches, data: EvaluationSet, meaning: Meaning) -> Evaluation:
    """Returns Spearman's correlation with the scores of the data, and Pearson's beside it.

    Raises:
        UsageError: If the model neither embeds nor has one logit, or the scores rank nothing.
    """
    if len(data.examples) < 2:
        raise UsageError(f"{data.path} holds one example; a correlation needs two or more")
    scores = np.array([e.target for e in data.examples], np.float64)
    if np.ptp(scores) == 0:
        raise UsageError(f"{data.path}: all scores are {scores[0]}; a correlation needs different ones")
    if len(meaning.labels) == 1:
        pairs = [(e.first, e.second) for e in data.examples]
        found = np.array(run.of_texts(pairs, lambda _, outputs: float(outputs["logits"][0])), np.float64)
    else:
        found = _of_embeddings(run, data, meaning)
    rows = np.stack([found, scores], axis=1)
    return Evaluation("spearman", rows, others={"pearson": pearson(found, scores)})


def _of_embeddings(run: Batches, data: EvaluationSet, meaning: Meaning) -> np.ndarray:
    texts = sorted({text for e in data.examples for text in (e.first, e.second or "")})
    vectors = embed(run, texts, f"{data.path} grades similarity")
    place = {text: index for index, text in enumerate(texts)}
    first = vectors[[place[e.first] for e in data.examples]]
    second = vectors[[place[e.second or ""] for e in data.examples]]
    return similarities(first, second, meaning.sentence.similarity if meaning.sentence is not None else "cosine")


def embed(run: Batches, texts: list[str], what: str) -> np.ndarray:
    """Returns the embeddings of texts, float64 ``[texts, width]``.

    Raises:
        UsageError: If the model gives none; ``what`` says what they are for.
    """

    def read(_: int, outputs: dict[str, np.ndarray]) -> np.ndarray:
        if EMBEDDING not in outputs:
            raise UsageError(
                f"{what}, which needs an embedding model, not a classifier (one of a single label grades pairs)"
            )
        return outputs[EMBEDDING]

    return np.stack(run.of_texts([(text, None) for text in texts], read)).astype(np.float64)


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
