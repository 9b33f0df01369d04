"""The task rule on the user's own data: perplexity, correlation and labels."""

import math

import numpy as np
import pytest

from edgeq.parity.rules.metric import check_labels, check_value

PERPLEXITY = math.exp(2.0)


def judged(values, noise=2.0):
    runs = []

    def under_noise(seed):
        runs.append(seed)
        return math.exp(noise - 1e-5 * seed)

    bundles = {str(number): math.exp(value) for number, value in enumerate(values)}
    checks = check_value("perplexity", PERPLEXITY, bundles, under_noise=under_noise)
    return [check.passed for check in checks], checks[0].measured["limit"], runs


def test_a_bundle_may_differ_by_a_thousandth():
    assert judged([2.0009]) == ([True], 1e-3, [])
    passed, limit, runs = judged([2.0009, 2.0011, math.nan])
    assert (passed, limit, runs) == ([True, False, False], 1e-3, list(range(8)))


def test_on_little_data_noise_says_what_a_bundle_may_differ_by():
    passed, limit, _ = judged([2.015, 2.025], noise=2.01)
    assert passed == [True, False]
    assert limit == pytest.approx(2 * (math.exp(0.01) - 1), rel=1e-3)


def test_labels_may_change_as_often_as_under_noise_and_twice_more():
    reference = np.zeros(50, np.int64)

    def changed(count):
        labels = reference.copy()
        labels[:count] = 1
        return labels

    def never(seed):
        raise AssertionError("noise is not needed for two labels")

    assert [check.passed for check in check_labels(reference, {"a": changed(2)}, under_noise=never)] == [True]
    bundles = {"a": changed(5), "b": changed(6)}
    checks = check_labels(reference, bundles, under_noise=lambda seed: changed(3 if seed == 4 else 0))
    assert [check.passed for check in checks] == [True, False]
    assert "6 of 50 decisions differ (limit 5" in checks[1].detail
