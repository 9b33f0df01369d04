"""The integer matmul of several tokens where 2 x 8 by 8 x 2 bytes are one instruction (``smmla`` of ARM's i8mm).

It takes eight neighbouring products of two tokens with two rows. So that nothing has to be put together where products
are made, the activations of two tokens are laid side by side once a matmul, eight columns each, and the codes of eight
rows are unpacked once for all tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.matmul_output import store_rows
from edgeq.targets.compiler.kernels.matmul_settings import LANE_TOKENS, MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.unpacked_codes import STEP_WORDS, steps_of, unpack

TOKENS = LANE_TOKENS
"""Tokens of a full tile: with eight rows, sixteen registers of sums. Fewer tokens are multiplied by lane."""
_LANES = 4
_VECTORS = 2
"""Registers of rows of a tile."""
_ORDER = ((0, 4, 1, 5), (2, 6, 3, 7))
"""Both groups of columns of a row side by side, two rows."""
_ROW_PAIRS = 4
_MANY_TOKENS = 64
"""The activations of fewer tokens than this are laid out by one thread."""


def _pairs(tokens: int) -> int:
    return (tokens + 1) // 2


def _lay_out_step(p: MatmulSettings, operands: Operands, laid: Any, m: Any, pair: Any, tokens: int) -> None:
    """Emits two blocks of columns of some tokens; rows are padded with zeros up to there."""
    fields, first = p.matrix.fields, pair * (2 * p.matrix.fields)
    for couple in range(_pairs(tokens)):
        # A last one is multiplied twice, and its second sums are not stored.
        rows = [m + 2 * couple, m + min(2 * couple + 1, tokens - 1)]
        if fields == 1:
            blocks = [operands.words[row, T.ramp(first, 1, 2)] for row in rows]
        else:
            blocks = [operands.words[row, T.ramp(first + at * fields, 1, fields)] for row in rows for at in range(2)]
        for field in range(fields):
            places = [0, 1, 2, 3] if fields == 1 else [at * fields + field for at in range(4)]
            place = m * steps_of(p) * 2 + ((pair * fields + field) * _pairs(tokens) + couple) * _LANES
            T.buffer_store(laid, tirx.Shuffle(blocks, places), [T.ramp(place, 1, _LANES)])


@macro
def _lay_out_tile(p, operands, laid, m, tokens):
    for pair in range((p.matrix.packed_shape[1] + 1) // 2):
        _lay_out_step(p, operands, laid, m, pair, tokens)


@macro
def _lay_out(p, operands, laid, tokens):
    if tokens < _MANY_TOKENS:
        for tile in range(tokens // TOKENS):
            _lay_out_tile(p, operands, laid, tile * TOKENS, TOKENS)
    else:
        for tile in T.parallel(tokens // TOKENS):
            _lay_out_tile(p, operands, laid, tile * TOKENS, TOKENS)
    if tokens % TOKENS >= 4:
        _lay_out_tile(p, operands, laid, tokens // TOKENS * TOKENS, 4)
    if tokens % 4 >= 2:
        _lay_out_tile(p, operands, laid, tokens // 4 * 4, 2)
    if tokens % 2 == 1:
        _lay_out_tile(p, operands, laid, tokens - 1, 1)


def _take_in(p: MatmulSettings, laid: Any, codes: Any, sums: Any, m: Any, step: Any, tokens: int) -> None:
    """Emits the products of eight columns."""
    if p.isa.matrix_product is None:
        raise ValueError(f"{p.isa.name} has no matmul instruction")
    starts = [(v * steps_of(p) + step) * STEP_WORDS + half * _LANES for v in range(_VECTORS) for half in range(2)]
    rows = [codes[T.ramp(start, 1, _LANES)] for start in starts]
    for couple in range(_pairs(tokens)):
        x = laid[T.ramp(m * steps_of(p) * 2 + (step * _pairs(tokens) + couple) * _LANES, 1, _LANES)]
        for at, two_rows in enumerate(rows):
            place = couple * _ROW_PAIRS + at
            T.buffer_store(sums, p.isa.matrix_product(sums[place], x, two_rows), [place])


def _by_token(sums: Any, totals: Any, v: int, tokens: int) -> None:
    """Emits the way from sums of two tokens with two rows to those of one token with a register of rows."""
    for r in range(tokens):
        place = r // 2 * _ROW_PAIRS + 2 * v
        places = [2, 3, 6, 7] if r % 2 else [0, 1, 4, 5]
        T.buffer_store(totals, tirx.Shuffle([sums[place], sums[place + 1]], places), [r])


@macro
def _store(p, operands, sums, m, block, first_vector, v, tokens):
    totals = registers((tokens,), "int32x4")
    _by_token(sums, totals, v, tokens)
    store_rows(p, operands, totals, m, block, first_vector + v, tokens)


@macro
def _tile(p, operands, laid, codes, m, block, first_vector, tokens):
    sums = registers((_pairs(tokens) * _ROW_PAIRS,), "int32x4")
    for a in T.unroll(_pairs(tokens) * _ROW_PAIRS):
        sums[a] = T.broadcast(T.int32(0), _LANES)
    for step in range(steps_of(p)):
        _take_in(p, laid, codes, sums, m, step, tokens)
    _store(p, operands, sums, m, block, first_vector, 0, tokens)
    _store(p, operands, sums, m, block, first_vector, 1, tokens)


@macro
def _rows_of_all_tokens(p, operands, laid, codes, block, first_vector, tokens):
    for tile in range(tokens // TOKENS):
        _tile(p, operands, laid, codes, tile * TOKENS, block, first_vector, TOKENS)
    if tokens % TOKENS >= 4:
        _tile(p, operands, laid, codes, tokens // TOKENS * TOKENS, block, first_vector, 4)
    if tokens % 4 >= 2:
        _tile(p, operands, laid, codes, tokens // 4 * 4, block, first_vector, 2)
    if tokens % 2 == 1:
        _tile(p, operands, laid, codes, tokens - 1, block, first_vector, 1)


@macro
def _matmul(p, operands, tokens):
    laid = T.alloc_buffer(((tokens + 1) * steps_of(p) * 2,), "int32")
    _lay_out(p, operands, laid, tokens)
    for block in T.parallel(p.matrix.packed_shape[0]):
        codes = T.alloc_buffer((_VECTORS * steps_of(p) * STEP_WORDS,), "int32")
        for half in range(p.isa.vectors // _VECTORS):
            unpack(p, operands, codes, block, half * _VECTORS, 0, _ORDER)
            unpack(p, operands, codes, block, half * _VECTORS + 1, steps_of(p), _ORDER)
            _rows_of_all_tokens(p, operands, laid, codes, block, half * _VECTORS, tokens)


@macro
def matmul_in_pairs_of_tokens(p, operands, tokens):
    """The whole matmul of eight tokens or more."""
    _matmul(dataclasses.replace(p, centred=True), operands, tokens)
