"""Layer normalisation over the last dimension, with the residual additions before it."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import LANES, bind, fma, splat, square_root, tree_sum
from edgeq.targets.kernels.shapes import PARALLEL_ROWS, leading_dimensions


def _add_square(x: Any, mean: Any, total: Any) -> Any:
    return bind(x - splat(mean, x), lambda deviation: fma(deviation, deviation, total))


def _normalised(x: Any, mean: Any, inverse: Any, gamma: Any, beta: Any) -> Any:
    return fma((x - splat(mean, x)) * splat(inverse, x), gamma, beta)


@macro
def _row_mean(row, columns, lane, lanes, mean):
    lane[0] = T.broadcast(T.float32(0), LANES)
    for c in range(columns // LANES):
        lane[0] = lane[0] + row[T.ramp(c * LANES, 1, LANES)]
    lanes[T.ramp(0, 1, LANES)] = lane[0]
    for c in range(columns % LANES):
        lanes[c] = lanes[c] + row[columns // LANES * LANES + c]
    mean[0] = tree_sum([lanes[j] for j in range(LANES)]) / T.float32(columns)


@macro
def _row_variance(row, columns, lane, lanes, mean, variance):
    lane[0] = T.broadcast(T.float32(0), LANES)
    for c in range(columns // LANES):
        lane[0] = _add_square(row[T.ramp(c * LANES, 1, LANES)], mean[0], lane[0])
    lanes[T.ramp(0, 1, LANES)] = lane[0]
    for c in range(columns % LANES):
        lanes[c] = _add_square(row[columns // LANES * LANES + c], mean[0], lanes[c])
    variance[0] = tree_sum([lanes[j] for j in range(LANES)]) / T.float32(columns)


@macro
def _normalise_row(i, row, gamma, beta, out, columns, epsilon):
    lane = T.alloc_buffer((1,), "float32x16", scope="local")
    lanes = T.alloc_buffer((LANES,), "float32", scope="local")
    mean = T.alloc_buffer((1,), "float32", scope="local")
    variance = T.alloc_buffer((1,), "float32", scope="local")
    inverse = T.alloc_buffer((1,), "float32", scope="local")
    _row_mean(row, columns, lane, lanes, mean)
    _row_variance(row, columns, lane, lanes, mean, variance)
    inverse[0] = T.float32(1) / square_root(variance[0] + T.float32(epsilon))
    for c in range(columns // LANES):
        out[i, T.ramp(c * LANES, 1, LANES)] = _normalised(
            row[T.ramp(c * LANES, 1, LANES)],
            mean[0],
            inverse[0],
            gamma[T.ramp(c * LANES, 1, LANES)],
            beta[T.ramp(c * LANES, 1, LANES)],
        )
    for c in range(columns % LANES):
        last = columns // LANES * LANES + c
        out[i, last] = _normalised(row[last], mean[0], inverse[0], gamma[last], beta[last])


@macro
def _plain_row(rows_in, gamma, beta, out, i, columns, epsilon):
    row = T.alloc_buffer((columns,), "float32", scope="local")
    for c in range(columns // LANES):
        row[T.ramp(c * LANES, 1, LANES)] = rows_in[i, T.ramp(c * LANES, 1, LANES)]
    for c in range(columns % LANES):
        last = columns // LANES * LANES + c
        row[last] = rows_in[i, last]
    _normalise_row(i, row, gamma, beta, out, columns, epsilon)


@macro
def _residual_row(rows_in, rows_added, gamma, beta, out, i, columns, epsilon):
    row = T.alloc_buffer((columns,), "float32", scope="local")
    for c in range(columns // LANES):
        row[T.ramp(c * LANES, 1, LANES)] = (
            rows_in[i, T.ramp(c * LANES, 1, LANES)] + rows_added[i, T.ramp(c * LANES, 1, LANES)]
        )
    for c in range(columns % LANES):
        last = columns // LANES * LANES + c
        row[last] = rows_in[i, last] + rows_added[i, last]
    _normalise_row(i, row, gamma, beta, out, columns, epsilon)


def layer_norm(columns: int, *, rank: int, epsilon: float, residual: bool) -> tirx.PrimFunc:
    """Builds ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`` with ``x`` the input or input + residual.

    Mean and variance are 16-lane partial sums reduced by one fixed tree; the variance is the mean of squared
    deviations (two passes).

    Args:
        columns: Length of a row.
        rank: Number of leading dimensions.
        epsilon: Added to the variance.
        residual: Whether a second tensor is added before the normalisation.

    Returns:
        A function of x float32 ``[..., K]``, (the residual float32 ``[..., K]``,) gamma float32 ``[K]``, beta float32
        ``[K]``, and the output float32 ``[..., K]``.
    """
    lead, rows = leading_dimensions(rank)

    @T.prim_func(s_tir=True)
    def plain(x: T.handle, gamma_: T.handle, beta_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        gamma = T.match_buffer(gamma_, (columns,), "float32")
        beta = T.match_buffer(beta_, (columns,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    _plain_row(rows_in, gamma, beta, out, i, columns, epsilon)
            else:
                for i in T.parallel(rows):
                    _plain_row(rows_in, gamma, beta, out, i, columns, epsilon)

    @T.prim_func(s_tir=True)
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
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    _residual_row(rows_in, rows_added, gamma, beta, out, i, columns, epsilon)
            else:
                for i in T.parallel(rows):
                    _residual_row(rows_in, rows_added, gamma, beta, out, i, columns, epsilon)

    return with_residual if residual else plain
