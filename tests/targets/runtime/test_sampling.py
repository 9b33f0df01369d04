import math

import numpy as np
import pytest
from edgeq.targets.runtime.numerics import exp_of_negative

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime.sampling import GREEDY, Sampler, Sampling, SplitMix64, _nucleus


def _logits(size=50, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 3


def _draws(sampling, logits, count):
    """Tokens of many sequences, each with a seed of its own."""
    drawn = []
    for seed in range(count):
        given = Sampling(sampling.temperature, sampling.top_k, sampling.top_p, sampling.repetition_penalty, seed)
        drawn.append(Sampler(given, []).choose(logits))
    return np.bincount(drawn, minlength=logits.size) / count


def test_random_numbers_are_those_of_splitmix64():
    # First outputs for seed 1234567 as published with the reference implementation.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    random = SplitMix64(1234567)
    assert [random.next_fraction() for _ in expected] == [(value >> 11) / 2**53 for value in expected]


def test_greedy_takes_the_first_of_the_largest():
    assert Sampler(GREEDY, []).choose(np.float32([1, 5, 5, -2])) == 1


def test_draws_follow_the_probabilities():
    logits = _logits(8)
    for temperature in (0.5, 1.0, 2.0):
        weights = np.exp(logits.astype(np.float64) / temperature)
        found = _draws(Sampling(temperature=temperature), logits, 8000)
        np.testing.assert_allclose(found, weights / weights.sum(), atol=0.025)


@pytest.mark.parametrize("top_k", [1, 3, 49, 50, 1000])
def test_top_k_draws_from_the_k_largest(top_k):
    logits = _logits()
    kept = set(np.argsort(-logits)[:top_k])
    drawn = set(np.flatnonzero(_draws(Sampling(temperature=30.0, top_k=top_k), logits, 2000)))
    assert drawn <= kept
    assert top_k > 3 or drawn == kept


def test_of_equal_logits_top_k_keeps_the_first():
    logits = np.float32([1, 2, 2, 2, 0])
    assert set(np.flatnonzero(_draws(Sampling(temperature=1.0, top_k=2), logits, 200))) == {1, 2}


def test_top_p_keeps_the_fewest_that_reach_the_probability():
    logits = np.log(np.float32([0.5, 0.1, 0.25, 0.15]))
    for top_p, kept in [(0.3, {0}), (0.51, {0, 2}), (0.8, {0, 2, 3}), (1.0, {0, 1, 2, 3})]:
        drawn = _draws(Sampling(temperature=1.0, top_p=top_p), logits, 400)
        assert set(np.flatnonzero(drawn)) == kept
    both = _draws(Sampling(temperature=1.0, top_k=3, top_p=0.9), logits, 400)
    assert set(np.flatnonzero(both)) == {0, 2, 3}


@pytest.mark.parametrize("seed", range(6))
def test_top_p_keeps_what_sorting_all_would_keep(seed):
    """Large and flat vocabularies need more than the first candidates, and hold ties."""
    generator = np.random.default_rng(seed)
    logits = np.round(generator.standard_normal(5000) * (0.1 + seed), 2).astype(np.float32)
    weights = exp_of_negative(logits.astype(np.float64) - float(logits.max()))
    for top_p in (0.01, 0.5, 0.93, 0.99999):
        order = np.lexsort((np.arange(logits.size), -logits))
        sums = np.cumsum(weights[order])
        kept = order[: 1 + int(np.searchsorted(sums, top_p * np.cumsum(weights)[-1]))]
        np.testing.assert_array_equal(_nucleus(logits, weights, top_p), np.sort(kept))


def test_banned_tokens_are_never_chosen():
    logits = np.float32([1, 9, 5, 8])
    assert Sampler(GREEDY, []).choose(logits, banned=[1, 3]) == 2
    for seed in range(60):
        sampling = Sampling(temperature=5.0, top_p=0.9, seed=seed)
        assert Sampler(sampling, []).choose(logits, banned=[1, 3, 3]) in (0, 2)
    np.testing.assert_array_equal(logits, np.float32([1, 9, 5, 8]))
    with pytest.raises(UsageError, match="no token is left that may come next"):
        Sampler(GREEDY, []).choose(logits, banned=[0, 1, 2, 3])


def test_of_equal_logits_top_p_keeps_the_first():
    logits = np.float32([-0.0, 0.0, -0.0, -1e-30, 1e-30, -9])
    for top_p, kept in [(0.15, {4}), (0.3, {0, 4}), (0.5, {0, 1, 4}), (0.7, {0, 1, 2, 4})]:
        drawn = _draws(Sampling(temperature=1.0, top_p=top_p), logits, 200)
        assert set(np.flatnonzero(drawn)) == kept


def test_the_repetition_penalty_works_on_prompt_and_new_tokens_of_either_sign():
    sampler = Sampler(Sampling(repetition_penalty=2.0), [0])
    logits = np.float32([4, 3, -1, -1.5])
    assert [sampler.choose(logits) for _ in range(3)] == [1, 0, 0]
    assert Sampler(Sampling(repetition_penalty=2.0), [0, 2]).choose(np.float32([-3, -5, -2, -4.5])) == 2
    np.testing.assert_array_equal(logits, np.float32([4, 3, -1, -1.5]))


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others():
    def tokens(seed):
        sampler = Sampler(Sampling(temperature=2.0, seed=seed), [])
        return [sampler.choose(_logits(seed=step)) for step in range(30)]

    assert tokens(3) == tokens(3)
    assert tokens(3) != tokens(4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    for sampling in (GREEDY, Sampling(temperature=1.0)):
        with pytest.raises(FormatError, match="not finite"):
            Sampler(sampling, []).choose(np.float32([1, bad]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be a number in 0\.001\.\.1000, or 0, found -1\.0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"temperature": True}, "temperature must be"),
        ({"temperature": 1e-9}, "temperature must be"),
        ({"temperature": 1.0, "top_k": -1}, "top_k must be an integer"),
        ({"temperature": 1.0, "top_k": 2.5}, "top_k must be an integer"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be a number above 0 and at most 1"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
        ({"seed": -1}, "seed must be an integer in 0"),
        ({"seed": 1 << 63}, "seed must be"),
        ({"top_k": 5}, "top_k has no effect at temperature 0"),
        ({"top_p": 0.5}, "top_p has no effect at temperature 0"),
    ],
)
def test_wrong_values_are_a_sentence(values, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**values)
