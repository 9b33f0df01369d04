"""The arithmetic of the benchmark that judges estimates."""

import pytest

from benchmarks.estimate.__main__ import machine_limits, spread


def test_the_spread_of_ratios():
    found = spread([0.5, 1.0, 2.0, 2.0, 8.0])
    assert (found["kernels"], found["least"], found["most"]) == (5, 0.5, 8.0)
    assert found["median"] == pytest.approx(2.0)
    assert found["typical_factor_off_the_median"] == pytest.approx(2.0)
    assert found["tenth"] < 1.0 < found["ninetieth"] < 8.0


@pytest.mark.slow
def test_the_limits_of_this_machine_are_possible_ones():
    limits = machine_limits()
    assert 0.3 < limits["gigahertz"] < 8
    assert 0.1 < limits["gigabytes_per_second"] < 500
