"""Differences between classifiers on the same sentences, with an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_RESAMPLES = 4000
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
    generator = np.random.default_rng(0)
    count = gaps.shape[1]
    # How often each seed, and each sentence, is drawn in each resample.
    rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=_RESAMPLES)
    columns = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    means = ((rows @ gaps) * columns).sum(axis=1) / (seeds * count)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(gaps.mean()), float(low), float(high))
