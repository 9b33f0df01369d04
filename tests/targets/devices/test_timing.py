"""A speed-up is claimed when there is one, and only then."""

import math

import numpy as np
import pytest

from edgeq.targets.devices.timing import CONFIDENCE, paired_speedup, summarize


def test_summary_of_known_numbers():
    timing = summarize([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (timing.median, timing.spread, timing.fastest, timing.calls) == (3.0, 1.0, 1.0, 5)
    assert 4.0 < timing.p95 < 100.0


def test_a_clear_difference_is_claimed_with_its_interval():
    rng = np.random.default_rng(0)
    baseline = 2.0 * rng.lognormal(0, 0.05, 30)
    candidate = 1.0 * rng.lognormal(0, 0.05, 30)
    speedup = paired_speedup(baseline, candidate)
    assert speedup.is_beyond_noise
    assert speedup.low < 2.0 < speedup.high
    assert "x faster" in speedup.sentence()
    assert "x slower" in paired_speedup(candidate, baseline).sentence()


def test_drift_that_hits_both_does_not_hide_a_difference():
    drift = np.linspace(1.0, 5.0, 20)
    speedup = paired_speedup(1.1 * drift, drift)
    assert speedup.low == pytest.approx(1.1)
    assert speedup.is_beyond_noise


def test_equal_programs_are_called_different_as_rarely_as_stated():
    rng = np.random.default_rng(1)
    trials = 2000
    wrong = sum(
        paired_speedup(rng.lognormal(0, 0.3, 25), rng.lognormal(0, 0.3, 25)).is_beyond_noise
        for _ in range(trials)
    )
    assert wrong / trials < (1 - CONFIDENCE) + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_the_interval_covers_the_true_ratio_as_often_as_stated():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(2000):
        speedup = paired_speedup(1.5 * rng.pareto(2, 21) + 1.5, rng.pareto(2, 21) + 1)
        covered += speedup.low <= 1.5 <= speedup.high
    assert covered / 2000 > CONFIDENCE - 0.015


@pytest.mark.parametrize("rounds", range(1, 6))
def test_too_few_rounds_claim_nothing(rounds):
    assert not paired_speedup([10.0] * rounds, [1.0] * rounds).is_beyond_noise


def test_six_rounds_are_the_fewest_that_can_claim():
    speedup = paired_speedup([10.0] * 6, [1.0] * 6)
    assert speedup.is_beyond_noise
    assert speedup.ratio == 10.0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_speedup([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive"):
        paired_speedup([0.0], [1.0])
    with pytest.raises(ValueError, match="no latencies"):
        summarize([])
