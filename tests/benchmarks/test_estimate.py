"""The arithmetic of the benchmark that judges estimates."""

import pytest

from benchmarks.estimate.__main__ import spread
from benchmarks.estimate.limits import better_limits, machine_limits, processor_of
from benchmarks.estimate.whole import whole_row
from edgeq.targets.builtin.target import ProcessorModel
from edgeq.targets.devices.estimate.estimator import Estimate, KernelEstimate


def test_the_spread_of_ratios():
    found = spread([0.5, 1.0, 2.0, 2.0, 8.0])
    assert (found["kernels"], found["least"], found["most"]) == (5, 0.5, 8.0)
    assert found["median"] == pytest.approx(2.0)
    assert found["typical_factor_off_the_median"] == pytest.approx(2.0)
    assert found["tenth"] < 1.0 < found["ninetieth"] < 8.0


def _limits(**passes):
    return {"gigahertz": 3.0, "gigabytes_per_second": 10.0, "passes": {size[1:]: rate for size, rate in passes.items()}}


def test_what_the_last_cache_holds_is_where_passes_become_slower():
    limits = _limits(_1=100.0, _2=80.0, _4=60.0, _8=40.0, _16=39.0, _32=25.0, _64=12.0, _128=10.0)
    found = processor_of(limits, model="m", own_cache_mib=2)
    assert found.cache_gigabytes_per_second == 40.0
    assert found.cache_megabytes == pytest.approx(32 * 1.048576)
    rates = [found.weights_gigabytes_per_second(size) for size in (2_000_000, 30_000_000, 40_000_000)]
    assert rates == [None, 40.0, 10.0]


def test_the_better_of_two_visits_counts():
    found = better_limits(_limits(_1=5.0, _2=9.0), _limits(_1=7.0, _2=3.0) | {"gigahertz": 2.0})
    assert found == _limits(_1=7.0, _2=9.0)


def test_the_row_of_a_whole_call_says_whether_it_keeps_the_goal():
    kernels = tuple(KernelEstimate(name, 1, 1, 1.0, 1, 1.0, 0.5, 0.5) for name in ("a", "b"))
    processor = ProcessorModel("m", 1.0, 1.0, 1.0)
    estimate = Estimate("b", "t", "t", processor, 16, 1, kernels, 1.0, {})
    times = {"seconds": 3.9, "median": 4.0, "runs": 5, "kernels": {"a": 1.0, "b": 2.0}}
    row = whole_row(estimate, "b", times=times)
    assert (row["estimated"], row["of_it_memory"], row["of_it_kernels"]) == (3.0, 1.0, 3.0)
    assert row["within_the_goal"]
    assert row["ratio"] == pytest.approx(3.0 / 3.9)
    assert not whole_row(estimate, "b", times=times | {"seconds": 4.1})["within_the_goal"]


@pytest.mark.slow
def test_the_limits_of_this_machine_are_possible_ones():
    limits = machine_limits()
    assert 0.3 < limits["gigahertz"] < 8
    assert 0.1 < limits["gigabytes_per_second"] < 500
    assert len(limits["passes"]) == 9
