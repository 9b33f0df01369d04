"""The integer matmul of several tokens on cores that multiply bytes but have no dot product (``smlal`` of ARM).

Products are added up in 16 bits for as long as they cannot overflow. So that a register of activations serves two
blocks of columns without a step before, activations are spread out once a matmul, each group of four columns twice, and
codes are unpacked once for each register of rows: ``x x y y`` times rows ``a b a b``, the first half of columns ``x``
and the second of columns ``y``, leaves sums of two rows. All tokens take them in from there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS
from edgeq.targets.compiler.kernels.matmul_output import store_rows
from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.unpacked_codes import STEP_WORDS, steps_of, unpack

TOKENS = 8
"""Tokens of a full tile: sixteen registers of sums, and as many for everything else."""
_LANES = 4
_ORDER = ((0, 1, 4, 5), (2, 3, 6, 7))
"""Two rows of the first group of columns beside the same rows of the second."""
_AT_ONCE = 2
"""Steps of one turn of a loop."""
_SHORT_GROUP = 2
"""Tokens whose products alternate where each has sums of its own: two registers more for each token."""
_LONG_GROUP = 4
"""The same where sums stay: an in-order core waits for a product before it adds another one to the same sums."""
_MANY_TOKENS = 64
"""Fewer tokens than this are spread out by one thread."""


def _largest_code(p: MatmulSettings) -> int:
    return 2 ** (p.product_bits - 1)


def _steps_in_16_bits(p: MatmulSettings) -> int:
    """Steps that fit into 16 bits, each of two products; as many as a loop takes at once, where there are several."""
    steps = (2**15 - 1) // (2 * _largest_code(p) * ACTIVATION_LEVELS)
    return steps // _AT_ONCE * _AT_ONCE if steps > 1 else 1


def _spread_pair(p: MatmulSettings, operands: Operands, spread: Any, m: Any, pair: Any, tokens: int) -> None:
    """Emits the spreading of two blocks of columns of some tokens; rows are padded with zeros up to there."""
    fields = p.matrix.fields
    for r in range(tokens):
        first = pair * (2 * fields)
        if fields == 1:
            blocks, places = [operands.words[m + r, T.ramp(first, 1, 2)]] * 2, [[0, 0, 1, 1]]
        else:
            blocks = [operands.words[m + r, T.ramp(first + at * fields, 1, fields)] for at in range(2)]
            places = [[field, field, fields + field, fields + field] for field in range(fields)]
        for field in range(fields):
            place = m * steps_of(p) + (pair * fields + field) * tokens + r
            T.buffer_store(spread, tirx.Shuffle(blocks, places[field]), [T.ramp(place * _LANES, 1, _LANES)])


@macro
def _spread_tile(p, operands, spread, m, tokens):
    for pair in range((p.matrix.packed_shape[1] + 1) // 2):
        _spread_pair(p, operands, spread, m, pair, tokens)


@macro
def _spread_all(p, operands, spread, tokens):
    if tokens < _MANY_TOKENS:
        for tile in range(tokens // TOKENS):
            _spread_tile(p, operands, spread, tile * TOKENS, TOKENS)
    else:
        for tile in T.parallel(tokens // TOKENS):
            _spread_tile(p, operands, spread, tile * TOKENS, TOKENS)
    if tokens % TOKENS >= 4:
        _spread_tile(p, operands, spread, tokens // TOKENS * TOKENS, 4)
    if tokens % 4 >= 2:
        _spread_tile(p, operands, spread, tokens // 4 * 4, 2)
    if tokens % 2 == 1:
        _spread_tile(p, operands, spread, tokens - 1, 1)


def _operands_of_step(
    p: MatmulSettings, spread: Any, codes: Any, m: Any, step: Any, tokens: int
) -> tuple[list[Any], list[Any]]:
    """Both registers of codes, and the activations of each token."""
    rows = [codes[T.ramp(step * STEP_WORDS + half * _LANES, 1, _LANES)] for half in range(2)]
    first = (m * steps_of(p) + step * tokens) * _LANES
    return rows, [spread[T.ramp(first + r * _LANES, 1, _LANES)] for r in range(tokens)]


def _groups(tokens: int, size: int) -> list[range]:
    return [range(first, min(first + size, tokens)) for first in range(0, tokens, size)]


def _take_in_short(
    p: MatmulSettings, spread: Any, codes: Any, acc: Any, m: Any, first: Any, tokens: int, steps: int
) -> None:
    """Emits a few steps that are widened at once."""
    loaded = [_operands_of_step(p, spread, codes, m, first + step, tokens) for step in range(steps)]
    for group in _groups(tokens, _SHORT_GROUP):
        places = [(r, half) for r in group for half in range(2)]
        sums = registers((2 * tokens,), "int16x8")
        for step, (rows, x) in enumerate(loaded):
            for part in range(2):
                for r, half in places:
                    total = None if step == part == 0 else sums[r * 2 + half]
                    T.buffer_store(sums, p.halves.add(total, rows[half], x[r], part), [r * 2 + half])
        for r, half in places:
            T.buffer_store(acc, p.halves.widen(acc[r * 2 + half], sums[r * 2 + half]), [r * 2 + half])


def _take_in(
    p: MatmulSettings, spread: Any, codes: Any, sums: Any, m: Any, first: Any, tokens: int, steps: int
) -> None:
    """Emits some steps into sums of 16 bits."""
    for step in range(steps):
        rows, x = _operands_of_step(p, spread, codes, m, first + step, tokens)
        for group in _groups(tokens, _LONG_GROUP):
            for part in range(2):
                for r in group:
                    for half in range(2):
                        total = p.halves.add(sums[r * 2 + half], rows[half], x[r], part)
                        T.buffer_store(sums, total, [r * 2 + half])


@macro
def _long_chunk(p, spread, codes, acc, m, first, tokens, steps):
    sums = registers((2 * tokens,), "int16x8")
    for a in T.unroll(2 * tokens):
        sums[a] = T.broadcast(T.int16(0), 8)
    for step in range(steps // _AT_ONCE):
        _take_in(p, spread, codes, sums, m, first + step * _AT_ONCE, tokens, _AT_ONCE)
    for a in T.unroll(2 * tokens):
        acc[a] = p.halves.widen(acc[a], sums[a])


@macro
def _long_sums(p, spread, codes, acc, m, tokens, most):
    """Fields are even in number, and so are steps."""
    for chunk in range(steps_of(p) // most):
        _long_chunk(p, spread, codes, acc, m, chunk * most, tokens, most)
    if steps_of(p) % most > 0:
        _long_chunk(p, spread, codes, acc, m, steps_of(p) // most * most, tokens, steps_of(p) % most)


@macro
def _short_sums(p, spread, codes, acc, m, tokens, most):
    for turn in range(steps_of(p) // _AT_ONCE):
        for chunk in range(_AT_ONCE // most):
            _take_in_short(p, spread, codes, acc, m, turn * _AT_ONCE + chunk * most, tokens, most)
    for step in range(steps_of(p) // _AT_ONCE * _AT_ONCE, steps_of(p)):
        _take_in_short(p, spread, codes, acc, m, step, tokens, 1)


@macro
def _tile(p, operands, spread, codes, m, block, v, tokens):
    acc = registers((2 * tokens,), "int32x4")
    for a in T.unroll(2 * tokens):
        acc[a] = T.broadcast(T.int32(0), _LANES)
    if _steps_in_16_bits(p) <= _AT_ONCE:
        _short_sums(p, spread, codes, acc, m, tokens, _steps_in_16_bits(p))
    else:
        _long_sums(p, spread, codes, acc, m, tokens, _steps_in_16_bits(p))
    totals = registers((tokens,), "int32x4")
    for r in T.unroll(tokens):
        totals[r] = p.halves.join(acc[2 * r], acc[2 * r + 1])
    store_rows(p, operands, totals, m, block, v, tokens)


@macro
def _rows_of_all_tokens(p, operands, spread, codes, block, v, tokens):
    for tile in range(tokens // TOKENS):
        _tile(p, operands, spread, codes, tile * TOKENS, block, v, TOKENS)
    if tokens % TOKENS >= 4:
        _tile(p, operands, spread, codes, tokens // TOKENS * TOKENS, block, v, 4)
    if tokens % 4 >= 2:
        _tile(p, operands, spread, codes, tokens // 4 * 4, block, v, 2)
    if tokens % 2 == 1:
        _tile(p, operands, spread, codes, tokens - 1, block, v, 1)


@macro
def _matmul(p, operands, tokens):
    spread = T.alloc_buffer((tokens * steps_of(p) * _LANES,), "int32")
    _spread_all(p, operands, spread, tokens)
    for block in T.parallel(p.matrix.packed_shape[0]):
        codes = T.alloc_buffer((steps_of(p) * STEP_WORDS,), "int32")
        for v in range(p.isa.vectors):
            unpack(p, operands, codes, block, v, 0, _ORDER)
            _rows_of_all_tokens(p, operands, spread, codes, block, v, tokens)


@macro
def matmul_in_halves(p, operands, tokens):
    """The whole matmul of two tokens or more."""
    _matmul(dataclasses.replace(p, centred=True), operands, tokens)
