"""Differences between models on the same sentences, pairs or windows of text, with an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

WINDOW = 256
"""Tokens of a window whose loss is recorded."""
_RESAMPLES = 4000
_CORRELATIONS = 500
"""Resamples of a correlation, which has to be ranked anew in each."""
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of accuracies in points, with a 95% interval from resampled sentences and seeds.

    Attributes:
        points: Mean over seeds and sentences.
        low: Lower end of the interval.
        high: Upper end.
    """

    points: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of perplexities, with a 95% interval from resampled windows and seeds.

    Attributes:
        value: Over all windows and seeds.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def verdict(low: float, high: float, goal: float, *, lower: bool = False) -> str:
    """Returns whether an interval clears a goal: ``met``, ``missed``, or ``not decided`` where the goal lies within.

    Args:
        low: Lower end of the interval.
        high: Upper end.
        goal: The figure to be reached.
        lower: Whether less is better.
    """
    if lower:
        low, high, goal = -high, -low, -goal
    if low >= goal:
        return "met"
    return "missed" if high < goal else "not decided"


def paired_difference(first: Sequence[str], second: Sequence[str]) -> Difference:
    """Compares two methods sentence by sentence.

    Args:
        first: For each seed, ``1`` or ``0`` for each sentence; one entry stands for all seeds.
        second: The same of the other method, in the same order of seeds.

    Returns:
        Accuracy of the first less that of the second.
    """
    matrices = [np.array([[mark == "1" for mark in row] for row in rows], float) for rows in (first, second)]
    seeds = max(len(matrix) for matrix in matrices)
    wide = [np.broadcast_to(matrix, (seeds, matrix.shape[1])) for matrix in matrices]
    gaps = 100 * (wide[0] - wide[1])
    low, high = _interval(_resampled_means(gaps))
    return Difference(float(gaps.mean()), low, high)


def paired_ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Ratio:
    """Compares the perplexities of two language models window by window.

    Args:
        first: For each seed, the summed loss of each window of :data:`WINDOW` tokens; one entry stands for all seeds.
        second: The same of the other model.

    Returns:
        Perplexity of the first over that of the second, with an interval from resampled windows and seeds.
    """
    matrices = [np.array(rows, float) for rows in (first, second)]
    seeds = max(len(matrix) for matrix in matrices)
    wide = [np.broadcast_to(matrix, (seeds, matrix.shape[1])) for matrix in matrices]
    gaps = (wide[0] - wide[1]) / WINDOW
    low, high = _interval(np.exp(_resampled_means(gaps)))
    return Ratio(float(np.exp(gaps.mean())), low, high)


def paired_correlation(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], targets: Sequence[float]
) -> Difference:
    """Compares two models by 100 times Spearman's correlation with ``targets``, over seeds and pairs of sentences.

    Args:
        first: For each seed, the score of each pair; one entry stands for all seeds.
        second: The same of the other model, in the same order of seeds.
        targets: What the pairs should score.
    """
    seeds, count = max(len(first), len(second)), len(targets)
    sides = [np.broadcast_to(np.array(rows, float), (seeds, count)) for rows in (first, second)]
    wanted = np.array(targets, float)
    generator = np.random.default_rng(0)
    drawn = [
        (generator.integers(count, size=count), generator.integers(seeds, size=seeds)) for _ in range(_CORRELATIONS)
    ]
    drawn.append((np.arange(count), np.arange(seeds)))  # all of them once: the measured difference
    pairs, chosen = (np.array(parts) for parts in zip(*drawn, strict=True))
    ranked = _ranks(wanted[pairs])
    gaps = [
        _correlations(_ranks(ours[pairs]), ranked) - _correlations(_ranks(theirs[pairs]), ranked)
        for ours, theirs in zip(*sides, strict=True)
    ]
    *resampled, measured = 100 * np.take_along_axis(np.array(gaps).T, chosen, axis=1).mean(axis=1)
    low, high = _interval(np.array(resampled))
    return Difference(float(measured), low, high)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in each row, about their mean; zeros in a row of equal values."""
    ranks = stats.rankdata(values, axis=1)
    centred: np.ndarray = ranks - ranks.mean(axis=1, keepdims=True)
    return centred


def _correlations(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Correlation of each pair of rows; 0 where one is all zeros: a model that has learned nothing ranks nothing."""
    lengths = np.sqrt((found**2).sum(axis=1) * (wanted**2).sum(axis=1))
    products = (found * wanted).sum(axis=1)
    return np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def _resampled_means(gaps: np.ndarray) -> np.ndarray:
    """Means of a matrix ``[seeds, places]`` over resampled seeds and places: ``[resamples]``."""
    generator = np.random.default_rng(0)
    seeds, count = gaps.shape
    # How often each seed, and each place, is drawn in each resample.
    rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=_RESAMPLES)
    columns = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    means: np.ndarray = ((rows @ gaps) * columns).sum(axis=1) / (seeds * count)
    return means


def _interval(values: np.ndarray) -> tuple[float, float]:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
