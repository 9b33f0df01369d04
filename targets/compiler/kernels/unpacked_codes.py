"""Codes of a register of rows, unpacked once for all tokens into a buffer that stays in the nearest cache (64-bit ARM).

A *step* is four rows and two groups of four columns: one field of two neighbouring blocks of columns. Activations are
brought into the same order by whoever multiplies.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.script import macro

STEP_WORDS = 8
"""Words of one step: two registers."""
_LANES = 4

Order = tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
"""The words of both registers: 0 to 3 are the rows of the first group of columns, 4 to 7 those of the second."""


def steps_of(p: MatmulSettings) -> Any:
    """Steps of a row."""
    return (p.matrix.packed_shape[1] + 1) // 2 * p.matrix.fields


def _signed_codes(p: MatmulSettings, words: Any, field: int) -> Any:
    """One field as signed bytes: the highest bit of a flipped code is its sign."""
    bits = p.matrix.bits
    codes = T.reinterpret(words, dtype="int8x16")
    if p.product_bits == 7:
        return codes - T.broadcast(T.int8(64), 16)
    if field < p.matrix.fields - 1:
        codes = T.shift_left(codes, T.broadcast(T.int8(8 - bits * (field + 1)), 16))
    return T.shift_right(codes, T.broadcast(T.int8(8 - bits), 16)) if bits < 8 else codes


def _unpack_pair(
    p: MatmulSettings,
    operands: Operands,
    codes: Any,
    block: Any,
    v: Any,
    first_step: Any,
    column_blocks: tuple[Any, Any],
    order: Order,
) -> None:
    """Emits the unpacking of a register of rows of two blocks of columns."""
    words = [operands.weight[block, at, T.ramp(v * _LANES, 1, _LANES)] for at in column_blocks]
    highest = sum(1 << (p.matrix.bits * (field + 1) - 1) for field in range(p.matrix.fields))
    flip = T.int32(int.from_bytes(bytes([highest] * 4), "little", signed=True))
    for half, places in enumerate(order):
        rows = tirx.Shuffle(words, list(places))
        if p.product_bits != 7:
            rows = T.bitwise_xor(rows, T.broadcast(flip, _LANES))
        for field in range(p.matrix.fields):
            place = (first_step + field) * STEP_WORDS + half * _LANES
            value = T.reinterpret(_signed_codes(p, rows, field), dtype="int32x4")
            T.buffer_store(codes, value, [T.ramp(place, 1, _LANES)])


@macro
def unpack(p, operands, codes, block, v, start, order):
    """Leaves the codes of register ``v`` of a block's rows in ``codes``, from step ``start`` on; ``p`` is centred."""
    for pair in range(p.matrix.packed_shape[1] // 2):
        _unpack_pair(
            p, operands, codes, block, v, start + pair * p.matrix.fields, (pair * 2, pair * 2 + 1), order
        )
    for last in range(p.matrix.packed_shape[1] // 2 * 2, p.matrix.packed_shape[1]):
        # The second half meets activations of zero.
        _unpack_pair(p, operands, codes, block, v, start + last // 2 * p.matrix.fields, (last, last), order)
