"""The matmul of float32 activations and packed codes: weight-only layers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.packing import COLUMN_GROUP, ROW_TILE
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.float_matmul import SINGLE_TOKEN_PANELS
from edgeq.targets.compiler.kernels.matmul_settings import EPILOGUES, Epilogue
from edgeq.targets.compiler.kernels.numerics import fma, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import leading_dimensions, row_parameter


class Operands(NamedTuple):
    """Buffers of one matmul, activations and output seen as rows."""

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
    row_tile: int

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


def _each(columns: Any) -> Any:
    """A loop over columns, unrolled where their number is known."""
    return T.unroll(columns) if isinstance(columns, int) else T.serial(columns)


@macro
def _block(p, o, acc, m, n_block, k_block, columns, tokens, blocks):
    for column in _each(columns):
        w = registers((blocks,), "float32x16")
        for b in T.unroll(blocks):
            w[b] = p.decoded(o.weight[n_block + b, k_block, T.ramp(0, 1, ROW_TILE)], column)
        for r in T.unroll(tokens):
            for b in T.unroll(blocks):
                acc[r * blocks + b] = fma(
                    T.broadcast(o.x[m + r, k_block * p.block_columns + column], ROW_TILE), w[b], acc[r * blocks + b]
                )


@macro
def _store(p, o, acc, m, n_block):
    if n_block < p.matrix.rows // ROW_TILE:
        o.out[m, T.ramp(n_block * ROW_TILE, 1, ROW_TILE)] = p.result(acc, o, n_block * ROW_TILE, ROW_TILE)
    else:
        sums = registers((ROW_TILE,), "float32")
        sums[T.ramp(0, 1, ROW_TILE)] = acc
        for last in range(p.matrix.rows // ROW_TILE * ROW_TILE, p.matrix.rows):
            o.out[m, last] = p.result(sums[last % ROW_TILE], o, last, 1)


@macro
def _tile(p, o, m, n_block, tokens, blocks):
    acc = registers((tokens * blocks,), "float32x16")
    for a in T.unroll(tokens * blocks):
        acc[a] = T.broadcast(T.float32(0), ROW_TILE)
    for k_block in range(p.matrix.columns // p.block_columns):
        _block(p, o, acc, m, n_block, k_block, p.block_columns, tokens, blocks)
    if p.matrix.columns % p.block_columns > 0:
        _block(
            p, o, acc, m, n_block, p.matrix.columns // p.block_columns, p.matrix.columns % p.block_columns, tokens,
            blocks,
        )  # fmt: skip
    for r in T.unroll(tokens):
        for b in T.unroll(blocks):
            _store(p, o, acc[r * blocks + b], m + r, n_block + b)


@macro
def _all_tokens(p, o, rows, n_block, blocks):
    """Full tiles, then what is left in tiles of 4, 2 and 1."""
    for tile in range(rows // p.row_tile):
        _tile(p, o, tile * p.row_tile, n_block, p.row_tile, blocks)
    if p.row_tile > 4 and rows % p.row_tile >= 4:
        _tile(p, o, rows // p.row_tile * p.row_tile, n_block, 4, blocks)
    if p.row_tile > 2 and rows % 4 >= 2:
        _tile(p, o, rows // 4 * 4, n_block, 2, blocks)
    if rows % 2 == 1:
        _tile(p, o, rows - 1, n_block, 1, blocks)


@macro
def _blocks_in_parallel(p, o, rows, count):
    for group in T.parallel(p.matrix.packed_shape[0] // count):
        _all_tokens(p, o, rows, group * count, count)
    for rest in range(p.matrix.packed_shape[0] // count * count, p.matrix.packed_shape[0]):
        _all_tokens(p, o, rows, rest, 1)


@macro
def weight_only_product(p, operands, rows, panels):
    """The whole matmul of ``rows`` rows; several are taken with ``panels`` blocks at a time."""
    if rows == 1:
        _blocks_in_parallel(p, operands, rows, SINGLE_TOKEN_PANELS)
    else:
        _blocks_in_parallel(p, operands, rows, panels)


def weight_only_matmul(
    isa: Isa, matrix: PackedMatrix, *, rank: int, has_bias: bool, epilogue: Epilogue = "none"
) -> tirx.PrimFunc:
    """Builds ``y = epilogue((sum (code - zero_point) * x) * scale + bias)`` with float32 activations.

    One fused multiply-add accumulator per output, in ascending order of k.

    Args:
        isa: Instruction set to compile for (its register count sets the tile, which changes no result).
        matrix: The packed weight.
        rank: Number of leading dimensions of x.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to the result while it is in registers.

    Returns:
        A function of x float32 ``[..., K]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``,
        bias float32 ``[N]`` or ``[1]``, and the output float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    p = WeightOnlyProduct(matrix, has_bias, epilogue, isa.row_tile)

    @script.prim_func(s_tir=True)
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
            weight_only_product(p, Operands(x, weight, scale, bias, out), rows, isa.float_panels)

    return product
