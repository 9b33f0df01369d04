"""Statistics of latencies: what may be said about two programs that took turns on one machine.

A median of one program against a median of another says little on a machine that others use too.
Here the two take turns, each round gives one ratio, and the median ratio gets a confidence interval
that assumes nothing about the noise (order statistics of the sign test). A speed-up is claimed only
if that interval does not hold 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from edgeq.results import SpeedupClaim, Timing

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Speedup:
    """How many times faster a candidate is than a baseline.

    Attributes:
        ratio: Median over rounds of baseline time / candidate time.
        low: Lower end of its confidence interval.
        high: Upper end.
        confidence: Probability that the interval holds the true median ratio.
        rounds: Number of rounds.
    """

    ratio: float
    low: float
    high: float
    confidence: float
    rounds: int

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval excludes 1, that is, whether a difference may be claimed at all."""
        return self.low > 1.0 or self.high < 1.0

    def sentence(self) -> str:
        """The claim in words: a factor with its interval, or that there is none to make."""
        interval = f"{self.low:.2f} to {self.high:.2f} at {self.confidence:.0%} confidence"
        if self.rounds and not self.is_beyond_noise:
            return f"no difference beyond noise ({interval})"
        if self.ratio >= 1.0:
            return f"{self.ratio:.2f}x faster ({interval})"
        return f"{1 / self.ratio:.2f}x slower (speed-up {interval})"


def claim(speedup: Speedup, *, others: float | None, most_others: float) -> SpeedupClaim:
    """Returns what may be said of a speed-up.

    Args:
        speedup: As measured.
        others: Share of the processors that other programs took meanwhile; None if unknown.
        most_others: The share above which a ratio says more about them.
    """
    busy = others is not None and others > most_others
    sentence = speedup.sentence()
    if busy:
        sentence = (
            f"no ratio, because other programs took {others:.0%} of the processors, and above {most_others:.0%} a "
            "ratio says more about them; measure again"
        )
    claimed = speedup.is_beyond_noise and not busy
    return SpeedupClaim(
        # A number that may not be claimed is not handed on either.
        ratio=speedup.ratio if claimed else None,
        low=speedup.low if claimed else None,
        high=speedup.high if claimed else None,
        confidence=speedup.confidence,
        rounds=speedup.rounds,
        beyond_noise=claimed,
        busy=busy,
        sentence=sentence,
    )


def summarize(seconds: Sequence[float]) -> Timing:
    """Summarizes latencies of single calls.

    Raises:
        ValueError: If there are none.
    """
    if not len(seconds):
        raise ValueError("no latencies to summarize")
    values = np.asarray(seconds, np.float64)
    median = float(np.median(values))
    return Timing(
        median=median,
        p95=float(np.quantile(values, 0.95)),
        spread=float(np.median(np.abs(values - median))),
        fastest=float(values.min()),
        calls=len(values),
    )


def paired_speedup(baseline: Sequence[float], candidate: Sequence[float]) -> Speedup:
    """Compares two programs from one time of each per round.

    Args:
        baseline: Seconds of the baseline, one number a round.
        candidate: Seconds of the candidate in the same rounds.

    Raises:
        ValueError: If the lengths differ or a time is not positive.
    """
    if len(baseline) != len(candidate) or not len(baseline):
        raise ValueError(f"rounds must be paired, found {len(baseline)} and {len(candidate)} times")
    if min(baseline) <= 0 or min(candidate) <= 0:
        raise ValueError("a latency must be positive")
    ratios = np.sort(np.asarray(baseline, np.float64) / np.asarray(candidate, np.float64))
    skip = _tail(len(ratios))
    # With too few rounds for the confidence asked for even the extremes do not suffice: nothing may be claimed.
    low, high = (0.0, math.inf) if skip is None else (float(ratios[skip]), float(ratios[-1 - skip]))
    return Speedup(float(np.median(ratios)), low, high, CONFIDENCE, len(ratios))


def _tail(rounds: int) -> int | None:
    """How many of the smallest and largest ratios may be left out of the interval for the median.

    Each ratio lies below the true median with probability one half, so the number that do is binomial.
    Returns None when not even the whole range reaches the confidence.
    """
    allowed = (1.0 - CONFIDENCE) / 2.0
    below = 0.0
    for count in range(rounds):
        below += math.comb(rounds, count) * 0.5**rounds
        if below > allowed:
            return count - 1 if count else None
    return None
