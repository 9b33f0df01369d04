"""Pooling kernels against numpy, and the same bits on every instruction set and with any padding."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.targets.compiler.kernels.pooling import largest_rows, row_lengths, running_sum, weighted_rows


@pytest.fixture
def run_everywhere(compile_kernel, runnable):
    """Runs a kernel on every instruction set here and holds the results equal."""

    def run(kernel, *arrays):
        results = [compile_kernel(kernel, name)(*arrays) for name in runnable]
        assert all(np.array_equal(results[0], other) for other in results[1:])
        return results[0]

    return run


def _states(batch, tokens, columns):
    return np.random.default_rng(columns).standard_normal((batch, tokens, columns)).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 16, 37])
def test_weighted_rows(columns, run_everywhere):
    x = _states(3, 7, columns)
    weights = np.random.default_rng(1).standard_normal((3, 1, 7)).astype(np.float32)
    weights[1, 0, 4:] = 0
    found = run_everywhere(weighted_rows(columns), weights, x, np.zeros((3, 1, columns), np.float32))
    expected = (weights.astype(np.float64).transpose(0, 2, 1) * x).sum(axis=1, keepdims=True)
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    short = [np.ascontiguousarray(a[1:2]) for a in (weights[:, :, :4], x[:, :4])]
    alone = run_everywhere(weighted_rows(columns), *short, np.zeros((1, 1, columns), np.float32))
    assert np.array_equal(alone[0], found[1])


@pytest.mark.parametrize("columns", [3, 32])
def test_largest_rows(columns, run_everywhere):
    x = _states(2, 5, columns)
    x[0, 2:] = np.finfo(np.float32).min
    found = run_everywhere(largest_rows(columns), x, np.zeros((2, columns), np.float32))
    assert np.array_equal(found, x.max(axis=1))


def test_running_sum(run_everywhere):
    x = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]], np.int64)
    assert np.array_equal(run_everywhere(running_sum(), x, np.zeros_like(x)), np.cumsum(x, axis=1))


@pytest.mark.parametrize("columns", [1, 16, 45])
def test_row_lengths(columns, run_everywhere):
    x = _states(1, 4, columns)[0]
    x[2] = 0
    found = run_everywhere(row_lengths(columns), x, np.zeros((4, 1), np.float32))
    assert np.allclose(found, np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True), rtol=1e-6)
    assert found[2, 0] == 0
