"""The way out of a low-bit matmul: integer sums become floats, pass the epilogue and are stored."""

from __future__ import annotations

from tvm.script import tirx as T

from edgeq.formats.packing import ROW_TILE
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro


@macro
def store_block(p, operands, acc, m, block, first):
    """Stores the sums of token ``m`` with a block, which are the registers of ``acc`` from ``first`` on."""
    for v in T.unroll(p.isa.vectors):
        if p.first_row(block, v) + p.isa.lanes <= p.matrix.rows:
            operands.out[m, T.ramp(p.first_row(block, v), 1, p.isa.lanes)] = p.result(
                acc[first + v], operands, m, p.first_row(block, v), p.isa.lanes
            )
    if p.matrix.rows % p.isa.lanes > 0 and block == p.full_blocks:
        sums = registers((ROW_TILE,), "int32")
        for v in T.unroll(p.isa.vectors):
            sums[T.ramp(v * p.isa.lanes, 1, p.isa.lanes)] = acc[first + v]
        for last_row in range(p.matrix.rows // p.isa.lanes * p.isa.lanes, p.matrix.rows):
            operands.out[m, last_row] = p.result(sums[last_row % ROW_TILE], operands, m, last_row, 1)


@macro
def store_rows(p, operands, acc, m, block, v, tokens):
    """Stores the sums of some tokens with one register of rows; a loop over tokens keeps the code short."""
    sums = registers((tokens * p.isa.lanes,), "int32")
    for r in T.unroll(tokens):
        sums[T.ramp(r * p.isa.lanes, 1, p.isa.lanes)] = acc[r]
    for r in range(tokens):
        if p.first_row(block, v) + p.isa.lanes <= p.matrix.rows:
            operands.out[m + r, T.ramp(p.first_row(block, v), 1, p.isa.lanes)] = p.result(
                sums[T.ramp(r * p.isa.lanes, 1, p.isa.lanes)], operands, m + r, p.first_row(block, v), p.isa.lanes
            )
        if p.matrix.rows % p.isa.lanes > 0 and p.first_row(block, v) == p.matrix.rows // p.isa.lanes * p.isa.lanes:
            for last_row in range(p.matrix.rows // p.isa.lanes * p.isa.lanes, p.matrix.rows):
                operands.out[m + r, last_row] = p.result(
                    sums[r * p.isa.lanes + last_row % p.isa.lanes], operands, m + r, last_row, 1
                )
