"""Metrics: from one row of numbers an example to one number, so that examples can be drawn anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

DEPTH = 10
"""Documents of a ranking that count."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of which more is better.

    Attributes:
        name: Its name in reports.
        columns: What the numbers of an example are.
        of: From float64 ``[examples, columns]`` to the metric.
        counts: Whether an example is right or wrong, and the metric the share of right ones.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[np.ndarray], float]
    counts: bool = False


def _mean(rows: np.ndarray) -> float:
    return float(rows[:, 0].mean())


def _rank_correlation(rows: np.ndarray) -> float:
    """0 where predictions or scores do not differ, or are no numbers: they rank nothing."""
    if (np.ptp(rows, axis=0) == 0).any() or not np.isfinite(rows).all():
        return 0.0
    ranks = [stats.rankdata(column) for column in rows.T]
    return float(np.corrcoef(*ranks)[0, 1])


def _f1_of_counts(rows: np.ndarray) -> float:
    """Harmonic mean of precision and recall over all examples together; 0 where nothing is found."""
    found, predicted, actual = rows.sum(axis=0)
    return float(2 * found / (predicted + actual)) if found else 0.0


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", ("right",), _mean, counts=True),
        Metric("top-1", ("right",), _mean, counts=True),
        Metric("spearman", ("prediction", "score"), _rank_correlation),
        Metric("entity-f1", ("right entities", "predicted entities", "entities"), _f1_of_counts),
        Metric("answer-f1", ("f1", "exact match"), _mean),
        Metric(f"ndcg@{DEPTH}", (f"ndcg@{DEPTH}", f"mrr@{DEPTH}"), _mean),
    )
}
"""The metrics by name. Perplexity, of which less is better, is in :mod:`edgeq.evaluate.perplexity`."""


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Pearson's correlation; 0 where one of the two does not differ or is no number."""
    if np.ptp(first) == 0 or np.ptp(second) == 0 or not np.isfinite(first).all():
        return 0.0
    return float(stats.pearsonr(first, second).statistic)


def discounted_gain(relevance: np.ndarray) -> float:
    """Returns the discounted cumulative gain of the first documents of a ranking (Jarvelin and Kekalainen, 2002).

    Args:
        relevance: float64 ``[documents]``, in the order of the ranking.
    """
    best = relevance[:DEPTH]
    return float((best / np.log2(np.arange(2, len(best) + 2))).sum())


def ranking_row(scores: np.ndarray, relevance: np.ndarray) -> tuple[float, float]:
    """Returns nDCG and reciprocal rank of a query, each over its first documents.

    Documents of equal scores stand in the order in which they were given.

    Args:
        scores: float ``[documents]``.
        relevance: float64 ``[documents]``, 0 or more; above 0 is relevant.
    """
    ranked = relevance[np.argsort(-scores, kind="stable")]
    ideal = discounted_gain(-np.sort(-relevance))
    places = np.flatnonzero(ranked[:DEPTH] > 0)
    return discounted_gain(ranked) / ideal if ideal else 0.0, 1.0 / (places[0] + 1) if places.size else 0.0
