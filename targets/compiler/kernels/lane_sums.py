"""Sums of a low-bit matmul where the dot product takes one lane of a register as its activations (``sdot`` of ARM).

Sixteen bytes of a token's activations are loaded once and serve four dot products, instead of one load for each. A
tile has many tokens and half a block of rows: codes are unpacked once for all tokens, and sums, codes and activations
still fit into 32 registers.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro

_LANES = 4
_HALF = 2
"""Vectors of rows that a loop takes."""


def _codes(p: MatmulSettings, word: Any, field: int) -> Any:
    """One field as bytes; shifted as bytes, so that the highest field needs no mask."""
    if p.matrix.bits == 8:
        return p.codes(word, 0)
    codes = T.reinterpret(word, dtype="uint8x16")
    if field > 0:
        codes = T.shift_right(codes, T.broadcast(T.uint8(field * p.matrix.bits), 16))
    if field < p.matrix.fields - 1:
        codes = T.bitwise_and(codes, T.broadcast(T.uint8(2**p.matrix.bits - 1), 16))
    return codes


def _take_in(
    p: MatmulSettings, operands: Operands, acc: Any, block: Any, half: int, k_block: Any, field: int, x: list[Any]
) -> None:
    """Emits the products of one field of one block of columns; ``x`` has the activations of each token."""
    vectors = [half * _HALF + v for v in range(_HALF)]
    rows = [operands.weight[block, k_block, T.ramp(v * _LANES, 1, _LANES)] for v in vectors]
    codes = registers((_HALF,), "int8x16")
    for v in range(_HALF):
        T.buffer_store(codes, T.reinterpret(_codes(p, rows[v], field), dtype="int8x16"), [v])
    for r, activations in enumerate(x):
        for v, vector in enumerate(vectors):
            place = r * p.isa.vectors + vector
            T.buffer_store(acc, p.isa.dot4(acc[place], codes[v], activations, p.product_bits), [place])


def _four_words(
    p: MatmulSettings,
    operands: Operands,
    acc: Any,
    m: Any,
    block: Any,
    half: int,
    k_block: Any,
    group: int,
    tokens: int,
) -> None:
    """Emits the products of sixteen columns."""
    x = registers((tokens,), "int32x4")
    for r in range(tokens):
        words = operands.words[m + r, T.ramp(k_block * p.matrix.fields + group * _LANES, 1, _LANES)]
        T.buffer_store(x, words, [r])
    for lane in range(_LANES):
        word = group * _LANES + lane
        spread = [tirx.Shuffle([x[r]], [lane] * _LANES) for r in range(tokens)]
        column = k_block + word // p.matrix.fields
        _take_in(p, operands, acc, block, half, column, word % p.matrix.fields, spread)


def _last_block(
    p: MatmulSettings, operands: Operands, acc: Any, m: Any, block: Any, half: int, k_block: Any, tokens: int
) -> None:
    """Emits the products of one block of columns that is fewer than sixteen."""
    for field in range(p.matrix.fields):
        spread = [T.broadcast(operands.words[m + r, k_block * p.matrix.fields + field], _LANES) for r in range(tokens)]
        _take_in(p, operands, acc, block, half, k_block, field, spread)


def _sixteen_columns(
    p: MatmulSettings, operands: Operands, acc: Any, m: Any, block: Any, half: int, k_block: Any, tokens: int
) -> None:
    """Emits the products of one block of columns, or of as many as make sixteen columns."""
    for group in range(max(1, p.matrix.fields // _LANES)):
        _four_words(p, operands, acc, m, block, half, k_block, group, tokens)


@macro
def _half_block(p, operands, acc, m, block, half, tokens, step):
    for k in range(p.matrix.packed_shape[1] // step):
        _sixteen_columns(p, operands, acc, m, block, half, k * step, tokens)
    for k_block in range(p.matrix.packed_shape[1] // step * step, p.matrix.packed_shape[1]):
        _last_block(p, operands, acc, m, block, half, k_block, tokens)


@macro
def lane_products(p, operands, acc, m, block, tokens):
    """Adds the products of some tokens with one block to ``acc``."""
    _half_block(p, operands, acc, m, block, 0, tokens, max(1, _LANES // p.matrix.fields))
    _half_block(p, operands, acc, m, block, 1, tokens, max(1, _LANES // p.matrix.fields))
