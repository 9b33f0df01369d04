"""Products of each head's rows with a matrix of its own: scores of all positions, of which some are then picked."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, fma, registers
from edgeq.targets.compiler.kernels.script import macro


class Operands(NamedTuple):
    """Buffers of one call, and the head that is being computed."""

    x: Any
    w: Any
    out: Any
    batch: Any
    head: Any


@dataclasses.dataclass(frozen=True)
class HeadProduct:
    """What is fixed when the kernel is built.

    Attributes:
        head_size: Columns of a head of ``x``.
        columns: Columns of its matrix.
        tile: Rows of a full tile.
        panels: Vectors of columns of a full tile.
    """

    head_size: int
    columns: int
    tile: int
    panels: int


@macro
def _tile(p, o, row, column, rows, count):
    acc = registers((rows * count,), "float32x16")
    for a in T.unroll(rows * count):
        acc[a] = T.broadcast(T.float32(0), LANES)
    for d in range(p.head_size):
        for r in T.unroll(rows):
            for c in T.unroll(count):
                acc[r * count + c] = fma(
                    T.broadcast(o.x[o.batch, o.head, row + r, d], LANES),
                    o.w[0, o.head, d, T.ramp(column + c * LANES, 1, LANES)],
                    acc[r * count + c],
                )
    for r in T.unroll(rows):
        for c in T.unroll(count):
            o.out[o.batch, o.head, row + r, T.ramp(column + c * LANES, 1, LANES)] = acc[r * count + c]


@macro
def _all_rows(p, o, rows, column, count):
    for tile in range(rows // p.tile):
        _tile(p, o, tile * p.tile, column, p.tile, count)
    for rest in range(rows % p.tile):
        _tile(p, o, rows // p.tile * p.tile + rest, column, 1, count)


@macro
def _last_columns(p, o, rows):
    """Columns that fill no vector, one by one in the same order."""
    for column in range(p.columns // LANES * LANES, p.columns):
        for row in range(rows):
            last = registers((1,), "float32")
            last[0] = T.float32(0)
            for d in range(p.head_size):
                last[0] = fma(o.x[o.batch, o.head, row, d], o.w[0, o.head, d, column], last[0])
            o.out[o.batch, o.head, row, column] = last[0]


@macro
def _one_head(p, o, rows):
    for group in range(p.columns // LANES // p.panels):
        _all_rows(p, o, rows, group * (p.panels * LANES), p.panels)
    for rest in range(p.columns // LANES // p.panels * p.panels, p.columns // LANES):
        _all_rows(p, o, rows, rest * LANES, 1)
    _last_columns(p, o, rows)


def head_matmul(isa: Isa, heads: int, head_size: int, columns: int) -> tirx.PrimFunc:
    """Builds ``y[b, h] = x[b, h] w[h]``: one fused multiply-add accumulator per output, in ascending order.

    Args:
        isa: Instruction set to compile for (its register count sets the tile, which changes no result).
        heads: Number of heads.
        head_size: Columns of a head.
        columns: Columns of each head's matrix.

    Returns:
        A function of x float32 ``[B, heads, S, head_size]``, w float32 ``[1, heads, head_size, columns]``, and the
        output float32 ``[B, heads, S, columns]``.
    """
    p = HeadProduct(head_size, columns, isa.row_tile, isa.float_panels)
    batch, rows = (tirx.Var(name, "int64") for name in ("batch", "rows"))

    @script.prim_func(s_tir=True)
    def product(x_: T.handle, w_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, heads, rows, head_size), "float32")
        w = T.match_buffer(w_, (1, heads, head_size, columns), "float32")
        out = T.match_buffer(y, (batch, heads, rows, columns), "float32")
        with T.sblock("root"):
            for task in T.parallel(batch * heads):
                _one_head(p, Operands(x, w, out, task // heads, task % heads), rows)

    return product
