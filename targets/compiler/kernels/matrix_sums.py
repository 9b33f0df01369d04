"""Sums of a low-bit matmul with an instruction that multiplies 2 x 8 by 8 x 2 bytes (``smmla`` of ARM's i8mm).

It takes 8 neighbouring products of two tokens with two rows. Words hold 4 of a row, so two words are interleaved: for
codes below 8 bits two fields of one word, for 8 bits the words of two neighbouring blocks of columns.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro

_ROW_PAIRS = 8
"""Pairs of rows in a block of 16."""


def _pair_of_tokens(operands: Operands, m: Any, column: Any, words: int) -> Any:
    """Eight activations of two tokens, or four twice where there are no more."""
    step = 1 if words == 2 else 0
    rows = [operands.words[m + r, column + step * at] for r in range(2) for at in range(2)]
    return tirx.Shuffle(rows, [0, 1, 2, 3])


def _take_in(
    p: MatmulSettings, operands: Operands, sums: Any, m: Any, halves: list[list[Any]], column: Any, tokens: int
) -> None:
    """Emits the products of eight columns, or of four where ``halves`` has no second one."""
    multiply = p.isa.matrix_product
    if multiply is None:
        raise ValueError(f"{p.isa.name} has no matmul instruction")
    activations = [_pair_of_tokens(operands, m + 2 * pair, column, len(halves)) for pair in range(tokens // 2)]
    for v in range(p.isa.vectors):
        low = halves[0][v]
        high = halves[1][v] if len(halves) == 2 else T.broadcast(T.int32(0), p.isa.lanes)
        for half, places in enumerate(([0, 4, 1, 5], [2, 6, 3, 7])):
            codes = tirx.Shuffle([low, high], places)
            for pair in range(tokens // 2):
                place = pair * _ROW_PAIRS + 2 * v + half
                T.buffer_store(sums, multiply(sums[place], activations[pair], codes), [place])


def _codes(p: MatmulSettings, operands: Operands, block: Any, k_block: Any, field: int) -> list[Any]:
    lanes = p.isa.lanes
    return [
        p.codes(operands.weight[block, k_block, T.ramp(v * lanes, 1, lanes)], field) for v in range(p.isa.vectors)
    ]


def _blocks_of_columns(
    p: MatmulSettings, operands: Operands, sums: Any, m: Any, block: Any, k_block: Any, tokens: int, count: int
) -> None:
    """Emits the products of one block of columns, or for 8 bits of two."""
    if p.matrix.fields == 1:
        halves = [_codes(p, operands, block, k_block + at, 0) for at in range(count)]
        _take_in(p, operands, sums, m, halves, k_block, tokens)
        return
    for field in range(0, p.matrix.fields, 2):
        halves = [_codes(p, operands, block, k_block, field + at) for at in range(2)]
        _take_in(p, operands, sums, m, halves, k_block * p.matrix.fields + field, tokens)


def _by_token(p: MatmulSettings, acc: Any, sums: Any, tokens: int) -> None:
    """Emits the way from sums of two tokens with two rows to those of one token with a vector of rows."""
    for pair in range(tokens // 2):
        for v in range(p.isa.vectors):
            place = pair * _ROW_PAIRS + 2 * v
            for r, places in enumerate(([0, 1, 4, 5], [2, 3, 6, 7])):
                total = tirx.Shuffle([sums[place], sums[place + 1]], places)
                T.buffer_store(acc, total, [(2 * pair + r) * p.isa.vectors + v])


@macro
def matrix_products(p, operands, acc, m, block, tokens):
    """Leaves the sums of an even number of tokens with one block in ``acc``."""
    sums = registers((tokens // 2 * _ROW_PAIRS,), "int32x4")
    for a in T.unroll(tokens // 2 * _ROW_PAIRS):
        sums[a] = T.broadcast(T.int32(0), 4)
    if p.matrix.fields == 1:
        for k in range(p.matrix.packed_shape[1] // 2):
            _blocks_of_columns(p, operands, sums, m, block, k * 2, tokens, 2)
        if p.matrix.packed_shape[1] % 2 > 0:
            _blocks_of_columns(p, operands, sums, m, block, p.matrix.packed_shape[1] - 1, tokens, 1)
    else:
        for k in range(p.matrix.packed_shape[1]):
            _blocks_of_columns(p, operands, sums, m, block, k, tokens, 1)
    _by_token(p, acc, sums, tokens)
