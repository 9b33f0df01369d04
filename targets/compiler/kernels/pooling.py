"""Kernels that make one vector of a text's tokens: sums and maxima over the sequence, and lengths of vectors.

A sum has one accumulator for each number of the vector, fused multiply-accumulates in the order of the tokens, so that
padding behind a text, whose weights are 0, changes nothing.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, fma, larger, registers, square_root, tree_sum
from edgeq.targets.compiler.kernels.script import macro


@macro
def _weighted_vector(weights, x, out, b, tokens, columns):
    total = registers((1,), "float32x16")
    last = registers((1,), "float32")
    for c in range(columns // LANES):
        total[0] = T.broadcast(T.float32(0), LANES)
        for s in range(tokens):
            total[0] = fma(T.broadcast(weights[b, 0, s], LANES), x[b, s, T.ramp(c * LANES, 1, LANES)], total[0])
        out[b, 0, T.ramp(c * LANES, 1, LANES)] = total[0]
    for c in range(columns // LANES * LANES, columns):
        last[0] = T.float32(0)
        for s in range(tokens):
            last[0] = fma(weights[b, 0, s], x[b, s, c], last[0])
        out[b, 0, c] = last[0]


def weighted_rows(columns: int) -> tirx.PrimFunc:
    """Builds ``y[b, 0] = sum over s of weights[b, 0, s] * x[b, s]``.

    Returns:
        A function of weights float32 ``[B, 1, S]``, x float32 ``[B, S, K]``, and the output float32 ``[B, 1, K]``.
    """
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def weighted(weights_: T.handle, x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        weights = T.match_buffer(weights_, (batch, 1, tokens), "float32")
        x = T.match_buffer(x_, (batch, tokens, columns), "float32")
        out = T.match_buffer(y, (batch, 1, columns), "float32")
        with T.sblock("root"):
            for b in T.parallel(batch):
                _weighted_vector(weights, x, out, b, tokens, columns)

    return weighted


def largest_rows(columns: int) -> tirx.PrimFunc:
    """Builds ``y[b] = max over s of x[b, s]``, the lowest float where there is no token.

    Returns:
        A function of x float32 ``[B, S, K]``, and the output float32 ``[B, K]``.
    """
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def largest(x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, tokens, columns), "float32")
        out = T.match_buffer(y, (batch, columns), "float32")
        with T.sblock("root"):
            for b in T.parallel(batch):
                for c in range(columns):
                    out[b, c] = T.min_value("float32")
                for s in range(tokens):
                    for c in range(columns):
                        out[b, c] = larger(x[b, s, c], out[b, c])

    return largest


def running_sum() -> tirx.PrimFunc:
    """Builds ``y[b, s] = x[b, 0] + ... + x[b, s]``.

    Returns:
        A function of x int64 ``[B, S]``, and the output int64 ``[B, S]``.
    """
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def running(x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, tokens), "int64")
        out = T.match_buffer(y, (batch, tokens), "int64")
        with T.sblock("root"):
            for b in range(batch):
                total = registers((1,), "int64")
                total[0] = T.int64(0)
                for s in range(tokens):
                    total[0] = total[0] + x[b, s]
                    out[b, s] = total[0]

    return running


@macro
def _length(x, out, b, columns):
    lanes = registers((LANES,), "float32")
    total = registers((1,), "float32x16")
    total[0] = T.broadcast(T.float32(0), LANES)
    for c in range(columns // LANES):
        total[0] = fma(x[b, T.ramp(c * LANES, 1, LANES)], x[b, T.ramp(c * LANES, 1, LANES)], total[0])
    if columns % LANES > 0:
        lanes[T.ramp(0, 1, LANES)] = total[0]
        for last in range(columns // LANES * LANES, columns):
            lanes[last % LANES] = fma(x[b, last], x[b, last], lanes[last % LANES])
        total[0] = lanes[T.ramp(0, 1, LANES)]
    out[b, 0] = square_root(tree_sum(total[0]))


def row_lengths(columns: int) -> tirx.PrimFunc:
    """Builds ``y[b, 0] = sqrt(sum over k of x[b, k] ** 2)``: 16 partial sums, reduced by one fixed tree.

    Returns:
        A function of x float32 ``[B, K]``, and the output float32 ``[B, 1]``.
    """
    batch = tirx.Var("batch", "int64")

    @script.prim_func(s_tir=True)
    def lengths(x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, columns), "float32")
        out = T.match_buffer(y, (batch, 1), "float32")
        with T.sblock("root"):
            for b in range(batch):
                _length(x, out, b, columns)

    return lengths
