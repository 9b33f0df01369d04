"""Layer normalisation over the last dimension, with the residual addition before it.

A row is read three times, for mean, variance and result; it stays in the first cache meanwhile, so that the sum with
the residual is made again each time instead of being kept.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, bind, fma, registers, splat, square_root, tree_sum
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS, leading_dimensions


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is normalised.

    Attributes:
        columns: Length of a row.
        addends: One tensor, or two whose sum is normalised, seen as rows.
        centred: Whether the mean is taken away first.
    """

    columns: int
    addends: tuple[Any, ...]
    centred: bool = True

    def vector(self, row: Any, block: Any) -> Any:
        """16 neighbouring values."""
        return self.value(row, T.ramp(block * LANES, 1, LANES))

    def value(self, row: Any, column: Any) -> Any:
        """One value, or a vector if the column is a ramp."""
        first, *others = (addend[row, column] for addend in self.addends)
        return first + others[0] if others else first


def _add_square(x: Any, mean: Any, total: Any) -> Any:
    return bind(x - splat(mean, x), lambda deviation: fma(deviation, deviation, total))


def _normalised(x: Any, mean: Any, inverse: Any, gamma: Any, beta: Any) -> Any:
    return fma((x - splat(mean, x)) * splat(inverse, x), gamma, beta)


@macro
def _row_mean(p, i, partial, mean):
    partial[0] = T.broadcast(T.float32(0), LANES)
    for c in range(p.columns // LANES):
        partial[0] = partial[0] + p.vector(i, c)
    if p.columns % LANES > 0:
        lanes = registers((LANES,), "float32")
        lanes[T.ramp(0, 1, LANES)] = partial[0]
        for last in range(p.columns // LANES * LANES, p.columns):
            lanes[last % LANES] = lanes[last % LANES] + p.value(i, last)
        partial[0] = lanes[T.ramp(0, 1, LANES)]
    mean[0] = tree_sum(partial[0]) / T.float32(p.columns)


@macro
def _row_variance(p, i, partial, mean, variance):
    partial[0] = T.broadcast(T.float32(0), LANES)
    for c in range(p.columns // LANES):
        partial[0] = _add_square(p.vector(i, c), mean[0], partial[0])
    if p.columns % LANES > 0:
        lanes = registers((LANES,), "float32")
        lanes[T.ramp(0, 1, LANES)] = partial[0]
        for last in range(p.columns // LANES * LANES, p.columns):
            lanes[last % LANES] = _add_square(p.value(i, last), mean[0], lanes[last % LANES])
        partial[0] = lanes[T.ramp(0, 1, LANES)]
    variance[0] = tree_sum(partial[0]) / T.float32(p.columns)


@macro
def normalise_row(p, i, gamma, beta, out, epsilon):
    """Writes row ``i`` of ``out``."""
    partial = registers((1,), "float32x16")
    mean = registers((1,), "float32")
    variance = registers((1,), "float32")
    inverse = registers((1,), "float32")
    mean[0] = T.float32(0)
    if p.centred:
        _row_mean(p, i, partial, mean)
    _row_variance(p, i, partial, mean, variance)
    inverse[0] = T.float32(1) / square_root(variance[0] + T.float32(epsilon))
    for c in range(p.columns // LANES):
        out[i, T.ramp(c * LANES, 1, LANES)] = _normalised(
            p.vector(i, c),
            mean[0],
            inverse[0],
            gamma[T.ramp(c * LANES, 1, LANES)],
            beta[T.ramp(c * LANES, 1, LANES)],
        )
    for last in range(p.columns // LANES * LANES, p.columns):
        out[i, last] = _normalised(p.value(i, last), mean[0], inverse[0], gamma[last], beta[last])


@macro
def _all_rows(p, rows, gamma, beta, out, epsilon):
    if rows < PARALLEL_ROWS:
        for i in range(rows):
            normalise_row(p, i, gamma, beta, out, epsilon)
    else:
        for i in T.parallel(rows):
            normalise_row(p, i, gamma, beta, out, epsilon)


def layer_norm(
    columns: int, *, rank: int, epsilon: float, residual: bool, centred: bool = True
) -> tirx.PrimFunc:
    """Builds ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` with ``x`` the input or input + residual.

    Mean and variance are 16-lane partial sums reduced by one fixed tree; the variance is the mean of squared
    deviations (two passes).

    Args:
        columns: Length of a row.
        rank: Number of leading dimensions.
        epsilon: Added to the variance.
        residual: Whether a second tensor is added before the normalisation.
        centred: Whether the mean is taken away; without, a row is divided by its root mean square (RMSNorm).

    Returns:
        A function of x float32 ``[..., K]``, (the residual float32 ``[..., K]``,) gamma float32 ``[K]``, beta float32
        ``[K]``, and the output float32 ``[..., K]``.
    """
    lead, rows = leading_dimensions(rank)

    @script.prim_func(s_tir=True)
    def plain(x: T.handle, gamma_: T.handle, beta_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        gamma = T.match_buffer(gamma_, (columns,), "float32")
        beta = T.match_buffer(beta_, (columns,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            _all_rows(Rows(columns, (rows_in,), centred), rows, gamma, beta, out, epsilon)

    @script.prim_func(s_tir=True)
    def with_residual(x: T.handle, added: T.handle, gamma_: T.handle, beta_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        added_buffer = T.match_buffer(added, (*lead, columns), "float32")
        gamma = T.match_buffer(gamma_, (columns,), "float32")
        beta = T.match_buffer(beta_, (columns,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            rows_added = T.decl_buffer((rows, columns), "float32", data=added_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            _all_rows(Rows(columns, (rows_in, rows_added), centred), rows, gamma, beta, out, epsilon)

    return with_residual if residual else plain
