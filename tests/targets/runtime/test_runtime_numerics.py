"""Exponential, logarithm and power of the runtimes: exact to a few ulps, and made of exact operations only."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies

from edgeq.targets.runtime.numerics import exp_of_negative, natural_log, power


def test_the_exponential_is_exact_to_two_ulps():
    x = -np.concatenate((np.linspace(0, 50, 20001), np.geomspace(1e-300, 699, 2000), [0.0]))
    expected = np.array([math.exp(value) for value in x])
    assert np.max(np.abs(exp_of_negative(x) - expected) / expected) < 5e-16
    assert list(exp_of_negative(np.array([-701.0, -1e300, -math.inf]))) == [0, 0, 0]


def test_the_exponential_does_not_depend_on_the_shape():
    x = -np.random.default_rng(0).random((7, 5000)) * 800
    rows = np.stack([exp_of_negative(row) for row in x])
    np.testing.assert_array_equal(exp_of_negative(x), rows)


@given(strategies.floats(min_value=1e-300, max_value=1e300))
def test_the_logarithm_is_exact_to_some_ulps(x):
    assert natural_log(x) == pytest.approx(math.log(x), rel=5e-16, abs=2e-16)


def test_logarithms_of_powers_of_two_and_one():
    assert natural_log(1.0) == 0
    assert [natural_log(2.0**n) for n in (1, 10, -3)] == [math.log(2.0**n) for n in (1, 10, -3)]


@given(strategies.integers(1, 5000), strategies.floats(-100, 100))
def test_the_power_is_exact_to_1e_minus_13(base, exponent):
    argument = exponent * math.log(base)
    if abs(argument) < 690:
        assert power(base, exponent) == pytest.approx(base**exponent, rel=2e-13)
    else:
        assert power(base, exponent) > 1e298 or power(base, exponent) < 1e-298


def test_powers_that_penalties_usually_are():
    assert [power(n, 1.0) for n in (1, 7, 1023)] == [1, 7, 1023]
    assert [power(n, 0.0) for n in (1, 7)] == [1, 1]
    assert power(5000, 100.0) == power(4000, 100.0)  # bounded, so that nothing overflows
