"""Queries, keys and values of one head as int8: a scale a token, codes where the dot product wants them.

Keys are packed in blocks of 16, as the rows of an 8-bit matrix are, and values in words of four neighbouring keys, so
that one 4-way dot product takes four columns, or four keys, in.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels.numerics import LANES, fma, registers, splat, tree_sum
from edgeq.targets.compiler.kernels.quantize_rows import find_largest, row_codes
from edgeq.targets.compiler.kernels.script import macro

GROUP = 4
"""Keys, or columns, that one 4-way dot product takes in."""


class Packed(NamedTuple):
    """Codes and scales of one head: all keys and values, and the queries of a tile."""

    rows: Any
    key_words: Any
    key_scales: Any
    value_words: Any
    value_scales: Any
    query_words: Any
    factors: Any
    code_sums: Any
    mask_row: Any


@dataclasses.dataclass(frozen=True)
class Int8Head:
    """What is fixed when the kernel is built, and the symbolic sizes.

    Attributes:
        isa: Instruction set.
        head_size: Columns of a head: an integer, or an expression of what the call tells.
        scale: Factor on the dot products, likewise.
        queries: Number of queries (symbolic).
        keys: Number of keys (symbolic).
    """

    isa: Isa
    head_size: Any
    scale: Any
    queries: Any
    keys: Any

    @property
    def tile(self) -> int:
        """Queries of a full tile."""
        return self.isa.row_tile

    @property
    def panels(self) -> int:
        """Vectors of 16 keys, or of 16 columns, of a full tile."""
        return self.isa.float_panels

    @property
    def parts(self) -> int:
        """Registers of sums for 16 keys or columns."""
        return self.isa.vectors

    @property
    def key_vectors(self) -> Any:
        """Vectors of 16 keys, the last one padded."""
        return tirx.floordiv(self.keys + (LANES - 1), LANES)

    @property
    def columns(self) -> Any:
        """Columns of a head, padded with zeros to whole vectors."""
        return self.column_vectors * LANES

    @property
    def column_vectors(self) -> Any:
        """Vectors of 16 columns, the last one padded."""
        return (self.head_size + (LANES - 1)) // LANES

    @property
    def words(self) -> Any:
        """Words of four codes of a padded row."""
        return self.column_vectors * (LANES // GROUP)

    def key_codes(self, codes: Any) -> Any:
        """Codes of a key as the dot product takes those of 8-bit weights: signed, or with 128 added."""
        if self.isa.signed_codes:
            return codes
        return T.bitwise_xor(codes, T.broadcast(T.int32(-2139062144), LANES // GROUP))  # 0x80 in every byte

    def first_sum(self, code_sum: Any) -> Any:
        """What a sum of scores begins with: less the 128 of each code of the key, where it is there."""
        start = T.int32(0) if self.isa.signed_codes else code_sum * T.int32(-128)
        return T.broadcast(start, self.isa.lanes)

    def score(self, total: Any, factor: Any, key_scales: Any, added: Any, first_key: Any) -> Any:
        """Scales integer sums of neighbouring keys and adds the mask; keys past the end get a weight of 0."""
        lanes = self.isa.lanes
        score = fma(T.cast(total, f"float32x{lanes}"), T.broadcast(factor, lanes) * key_scales, added)
        index = T.ramp(first_key, T.int64(1), lanes)
        return T.Select(index < T.broadcast(self.keys, lanes), score, splat(-math.inf, score))

    def place(self, vector: Any, part: Any) -> Any:
        """Places of the lanes of a register of sums."""
        return T.ramp(vector * LANES + part * self.isa.lanes, 1, self.isa.lanes)


def packed_bytes(codes: Any) -> Any:
    """Sixteen codes as four words."""
    return T.reinterpret(T.cast(codes, "int8x16"), dtype="int32x4")


def _grouped(rows: list[Any]) -> Any:
    """Words of the same column of four rows of codes, ``int32x16`` each."""
    byte = T.broadcast(T.int32(255), LANES)
    word = T.bitwise_and(rows[0], byte)
    for index, codes in enumerate(rows[1:], 1):
        kept = codes if index == GROUP - 1 else T.bitwise_and(codes, byte)
        word = T.bitwise_or(word, T.shift_left(kept, T.broadcast(T.int32(8 * index), LANES)))
    return word


@macro
def _read_row(p, o, source, token, rows, r):
    """Brings the columns of the head to one place, padded with zeros."""
    for c in range(p.head_size // LANES):
        rows[r, T.ramp(c * LANES, 1, LANES)] = source[o.batch, token, T.ramp(o.first_column + c * LANES, 1, LANES)]
    for c in range(p.head_size % LANES):
        rows[r, p.head_size // LANES * LANES + c] = source[
            o.batch, token, o.first_column + p.head_size // LANES * LANES + c
        ]
    for c in range(p.columns - p.head_size):
        rows[r, p.head_size + c] = T.float32(0)


@macro
def _scale_row(p, rows, r, inverses, scales, place):
    peak = registers((1,), "float32")
    find_largest(rows, peak, r, p.columns)
    scales[place] = peak[0] / T.float32(ACTIVATION_LEVELS)
    inverses[r] = T.float32(ACTIVATION_LEVELS) / peak[0]


@macro
def pack_keys(p, o, rows, key_words, key_scales):
    """Quantizes all keys of a head; ``rows`` is scratch memory."""
    inverses = registers((1,), "float32")
    words = registers((LANES // GROUP,), "int32")
    for t in range(p.keys):
        _read_row(p, o, o.k, t, rows, 0)
        _scale_row(p, rows, 0, inverses, key_scales, t)
        for c in range(p.column_vectors):
            words[T.ramp(0, 1, LANES // GROUP)] = p.key_codes(
                packed_bytes(row_codes(rows[0, T.ramp(c * LANES, 1, LANES)], inverses[0]))
            )
            for w in T.unroll(LANES // GROUP):
                key_words[t // LANES, c * (LANES // GROUP) + w, t % LANES] = words[w]
    for t in range(p.key_vectors * LANES - p.keys):
        key_scales[p.keys + t] = T.float32(0)
        for w in range(p.words):
            key_words[p.key_vectors - 1, w, LANES - 1 - t] = T.int32(0)


@macro
def _pack_group(p, rows, inverses, value_words, group):
    codes = registers((GROUP,), "int32x16")
    for c in range(p.column_vectors):
        for r in T.unroll(GROUP):
            codes[r] = row_codes(rows[r, T.ramp(c * LANES, 1, LANES)], inverses[r])
        value_words[group, T.ramp(c * LANES, 1, LANES)] = _grouped([codes[0], codes[1], codes[2], codes[3]])


@macro
def pack_values(p, o, rows, value_words, value_scales):
    """Quantizes all values of a head; words of keys past the end hold 0."""
    inverses = registers((GROUP,), "float32")
    for group in range(p.keys // GROUP):
        for r in range(GROUP):
            _read_row(p, o, o.v, group * GROUP + r, rows, r)
            _scale_row(p, rows, r, inverses, value_scales, group * GROUP + r)
        _pack_group(p, rows, inverses, value_words, group)
    for t in range(p.key_vectors * LANES - p.keys):
        value_scales[p.keys + t] = T.float32(0)
    for group in range(p.key_vectors * (LANES // GROUP) - p.keys // GROUP):
        for c in range(p.column_vectors):
            value_words[p.keys // GROUP + group, T.ramp(c * LANES, 1, LANES)] = T.broadcast(T.int32(0), LANES)
    if p.keys % GROUP > 0:
        for r in range(GROUP):
            inverses[r] = T.float32(0)
            for c in range(p.column_vectors):
                rows[r, T.ramp(c * LANES, 1, LANES)] = T.broadcast(T.float32(0), LANES)
        for r in range(p.keys % GROUP):
            _read_row(p, o, o.v, p.keys // GROUP * GROUP + r, rows, r)
            _scale_row(p, rows, r, inverses, value_scales, p.keys // GROUP * GROUP + r)
        _pack_group(p, rows, inverses, value_words, p.keys // GROUP)


@macro
def pack_queries(p, o, x, s, tile):
    """``factors`` gets the scale of each query times the factor on the dot products."""
    inverses = registers((tile,), "float32")
    sums = registers((1,), "int32x16")
    codes = registers((1,), "int32x16")
    for r in range(tile):
        _read_row(p, o, o.q, s + r, x.rows, r)
        _scale_row(p, x.rows, r, inverses, x.factors, r)
        x.factors[r] = x.factors[r] * p.scale
    for r in range(tile):
        sums[0] = T.broadcast(T.int32(0), LANES)
        for c in range(p.column_vectors):
            codes[0] = row_codes(x.rows[r, T.ramp(c * LANES, 1, LANES)], inverses[r])
            sums[0] = sums[0] + codes[0]
            x.query_words[r, T.ramp(c * (LANES // GROUP), 1, LANES // GROUP)] = packed_bytes(codes[0])
        x.code_sums[r] = tree_sum(sums[0])
