"""The product of float32 activations and packed codes: weight-only layers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats import COLUMN_GROUP, ROW_TILE, PackedMatrix
from edgeq.targets.kernels.float_matmul import TOKEN_TILE
from edgeq.targets.kernels.low_bit_matmul import EPILOGUES, Epilogue
from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import fma, registers
from edgeq.targets.kernels.shapes import leading_dimensions, row_parameter


class Operands(NamedTuple):
    """Buffers of one product, activations and output seen as rows."""

    x: Any
    weight: Any
    scale: Any
    bias: Any
    out: Any


@dataclasses.dataclass(frozen=True)
class WeightOnlyProduct:
    """What is fixed when the kernel is built."""

    matrix: PackedMatrix
    has_bias: bool
    epilogue: Epilogue

    @property
    def block_columns(self) -> int:
        """Columns of one packed block."""
        return COLUMN_GROUP * self.matrix.fields

    def decoded(self, word: Any, column: Any) -> Any:
        """``code - zero_point`` of one column of a block for 16 rows."""
        shift = (column % COLUMN_GROUP) * 8 + (column // COLUMN_GROUP) * self.matrix.bits
        codes = T.bitwise_and(
            T.shift_right(word, T.broadcast(T.cast(shift, "int32"), ROW_TILE)),
            T.broadcast(T.int32(2**self.matrix.bits - 1), ROW_TILE),
        )
        return T.cast(codes, "float32x16") - T.broadcast(T.float32(self.matrix.zero_point), ROW_TILE)

    def result(self, total: Any, operands: Operands, row: Any, width: int) -> Any:
        """Turns ``width`` sums into outputs."""
        scale = row_parameter(operands.scale, row, width, self.matrix.scales)
        bias = row_parameter(operands.bias, row, width, self.matrix.rows if self.has_bias else 1)
        return EPILOGUES[self.epilogue](fma(total, scale, bias))


@macro
def _block(p, o, acc, m, n_block, k_block, count, tile):
    for column in T.unroll(count):
        w = registers((1,), "float32x16")
        w[0] = p.decoded(o.weight[n_block, k_block, T.ramp(0, 1, ROW_TILE)], column)
        for r in T.unroll(tile):
            acc[r] = fma(T.broadcast(o.x[m + r, k_block * p.block_columns + column], ROW_TILE), w[0], acc[r])


@macro
def _store(p, o, acc, m, n_block, r):
    if n_block < p.matrix.rows // ROW_TILE:
        o.out[m + r, T.ramp(n_block * ROW_TILE, 1, ROW_TILE)] = p.result(acc[r], o, n_block * ROW_TILE, ROW_TILE)
    else:
        sums = registers((ROW_TILE,), "float32")
        sums[T.ramp(0, 1, ROW_TILE)] = acc[r]
        for last in range(p.matrix.rows // ROW_TILE * ROW_TILE, p.matrix.rows):
            o.out[m + r, last] = p.result(sums[last % ROW_TILE], o, last, 1)


@macro
def _tile(p, o, m, n_block, tile):
    acc = registers((tile,), "float32x16")
    for r in T.unroll(tile):
        acc[r] = T.broadcast(T.float32(0), ROW_TILE)
    for k_block in range(p.matrix.columns // p.block_columns):
        _block(p, o, acc, m, n_block, k_block, p.block_columns, tile)
    if p.matrix.columns % p.block_columns > 0:
        _block(
            p, o, acc, m, n_block, p.matrix.columns // p.block_columns, p.matrix.columns % p.block_columns, tile
        )
    for r in T.unroll(tile):
        _store(p, o, acc, m, n_block, r)


def weight_only_matmul(
    matrix: PackedMatrix, *, rank: int, has_bias: bool, epilogue: Epilogue = "none"
) -> tirx.PrimFunc:
    """Builds ``y = epilogue((sum (code - zero_point) * x) * scale + bias)`` with float32 activations.

    One fused multiply-add accumulator per output, in ascending order of k.

    Args:
        matrix: The packed weight.
        rank: Number of leading dimensions of x.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to the result while it is in registers.

    Returns:
        A function of x float32 ``[..., K]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``,
        bias float32 ``[N]`` or ``[1]``, and the output float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    p = WeightOnlyProduct(matrix, has_bias, epilogue)

    @T.prim_func(s_tir=True)
    def product(x_: T.handle, w_: T.handle, scale_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x_, (*lead, matrix.columns), "float32")
        weight = T.match_buffer(w_, matrix.packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        bias = T.match_buffer(bias_, (matrix.rows if has_bias else 1,), "float32")
        y_buffer = T.match_buffer(y, (*lead, matrix.rows), "float32")
        with T.sblock("root"):
            x = T.decl_buffer((rows, matrix.columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, matrix.rows), "float32", data=y_buffer.data)
            for n_block in T.parallel(matrix.packed_shape[0]):
                for tile in range(rows // TOKEN_TILE):
                    _tile(p, Operands(x, weight, scale, bias, out), tile * TOKEN_TILE, n_block, TOKEN_TILE)
                for m in range(rows % TOKEN_TILE):
                    _tile(p, Operands(x, weight, scale, bias, out), rows // TOKEN_TILE * TOKEN_TILE + m, n_block, 1)

    return product
