"""Attention whose matmuls are sums of integers: queries, keys, values and the weights of the values as int8.

One head of one sequence is a task. Its keys and values are quantized once; then tiles of a few queries go through
scores, softmax and weighted sum while their scores stay in cache. The formula is in
``edgeq/export/ops/int8_attention.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.attention import Operands, copy_mask
from edgeq.targets.compiler.kernels.cached_head import LOWEST
from edgeq.targets.compiler.kernels.int8_packing import (
    GROUP,
    Int8Head,
    Packed,
    pack_keys,
    pack_queries,
    pack_values,
    packed_bytes,
)
from edgeq.targets.compiler.kernels.numerics import LANES, exp, larger, registers, tree_max, tree_sum
from edgeq.targets.compiler.kernels.quantize_rows import row_codes
from edgeq.targets.compiler.kernels.script import macro

WEIGHT_BITS = 7
"""Weights of values are 0 to 127: bytes that are the same with and without a sign, so that no product saturates."""


class Tile(NamedTuple):
    """What a tile of queries comes to, step by step."""

    scores: Any
    peaks: Any
    weights: Any
    results: Any
    sums: Any


@macro
def _scores_of(p, x, s_, tile, t, panels):
    """Scores of a tile of queries with ``panels`` vectors of keys, from vector ``t`` on."""
    acc = registers((tile * panels * p.parts,), f"int32x{p.isa.lanes}")
    codes = registers((panels * p.parts,), f"int32x{p.isa.lanes}")
    value = registers((1,), f"float32x{p.isa.lanes}")
    for r in T.unroll(tile):
        for i in T.unroll(panels * p.parts):
            acc[r * panels * p.parts + i] = p.first_sum(x.code_sums[r])
    for w in range(p.words):
        for i in T.unroll(panels * p.parts):
            codes[i] = x.key_words[t + i // p.parts, w, p.place(0, i % p.parts)]
        for r in T.unroll(tile):
            for i in T.unroll(panels * p.parts):
                acc[r * panels * p.parts + i] = p.isa.dot4(
                    acc[r * panels * p.parts + i], codes[i], T.broadcast(x.query_words[r, w], p.isa.lanes), 8
                )
    for r in T.unroll(tile):
        for i in T.unroll(panels * p.parts):
            value[0] = p.score(
                acc[r * panels * p.parts + i],
                x.factors[r],
                x.key_scales[p.place(t + i // p.parts, i % p.parts)],
                x.mask_row[p.place(t + i // p.parts, i % p.parts)],
                (t + i // p.parts) * LANES + i % p.parts * p.isa.lanes,
            )
            s_.scores[r, p.place(t + i // p.parts, i % p.parts)] = value[0]
            s_.peaks[r] = larger(value[0], s_.peaks[r])


@macro
def _scores(p, x, s_, tile):
    for t in range(p.key_vectors // p.panels):
        _scores_of(p, x, s_, tile, t * p.panels, p.panels)
    for t in range(p.key_vectors % p.panels):
        _scores_of(p, x, s_, tile, p.key_vectors // p.panels * p.panels + t, 1)


@macro
def _numerators(p, x, s_, r, peak, largest, total):
    """Leaves ``e**(score - peak)`` times the scale of each key's values, the largest of them, and the sum of powers."""
    power = registers((1,), "float32x16")
    row_largest = registers((1,), "float32x16")
    row_total = registers((1,), "float32x16")
    row_total[0] = T.broadcast(T.float32(0), LANES)
    row_largest[0] = T.broadcast(T.float32(0), LANES)
    for t in range(p.key_vectors):
        power[0] = exp(s_.scores[r, T.ramp(t * LANES, 1, LANES)] - T.broadcast(peak, LANES))
        row_total[0] = row_total[0] + power[0]
        power[0] = power[0] * x.value_scales[T.ramp(t * LANES, 1, LANES)]
        s_.scores[r, T.ramp(t * LANES, 1, LANES)] = power[0]
        row_largest[0] = larger(power[0], row_largest[0])
    total[r] = row_total[0]
    largest[r] = row_largest[0]


@macro
def _weights(p, x, s_, tile):
    """Turns scores into codes of what values weigh, and says what a sum of them is multiplied by.

    One step for all queries of the tile after the other: reductions and divisions of one do not wait for another's.
    """
    peaks = registers((tile,), "float32")
    inverses = registers((tile,), "float32")
    largest = registers((tile,), "float32x16")
    total = registers((tile,), "float32x16")
    for r in range(tile):
        peaks[r] = tree_max(s_.peaks[r])
    for r in range(tile):
        _numerators(p, x, s_, r, peaks[r], largest, total)
    for r in range(tile):
        peaks[r] = tree_max(largest[r])
        inverses[r] = T.float32(ACTIVATION_LEVELS) / peaks[r]
        s_.results[r] = peaks[r] / T.float32(ACTIVATION_LEVELS) / tree_sum(total[r])
    for r in range(tile):
        for t in range(p.key_vectors):
            s_.weights[r, T.ramp(t * (LANES // GROUP), 1, LANES // GROUP)] = packed_bytes(
                row_codes(s_.scores[r, T.ramp(t * LANES, 1, LANES)], inverses[r])
            )


@macro
def _weighted_sum_of(p, x, s_, tile, c, panels):
    """``panels`` vectors of output columns, from vector ``c`` on, for a tile of queries."""
    acc = registers((tile * panels * p.parts,), f"int32x{p.isa.lanes}")
    values = registers((panels * p.parts,), f"int32x{p.isa.lanes}")
    for a in T.unroll(tile * panels * p.parts):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    for g in range(p.key_vectors * (LANES // GROUP)):
        for i in T.unroll(panels * p.parts):
            values[i] = x.value_words[g, p.place(c + i // p.parts, i % p.parts)]
        for r in T.unroll(tile):
            for i in T.unroll(panels * p.parts):
                acc[r * panels * p.parts + i] = p.isa.dot4(
                    acc[r * panels * p.parts + i],
                    T.broadcast(s_.weights[r, g], p.isa.lanes),
                    values[i],
                    WEIGHT_BITS,
                )
    for r in T.unroll(tile):
        for i in T.unroll(panels * p.parts):
            s_.sums[r, p.place(c + i // p.parts, i % p.parts)] = T.cast(
                acc[r * panels * p.parts + i], f"float32x{p.isa.lanes}"
            ) * T.broadcast(s_.results[r], p.isa.lanes)


@macro
def _weighted_sum(p, o, x, s_, s, tile):
    for c in range(p.column_vectors // p.panels):
        _weighted_sum_of(p, x, s_, tile, c * p.panels, p.panels)
    for c in range(p.column_vectors % p.panels):
        _weighted_sum_of(p, x, s_, tile, p.column_vectors // p.panels * p.panels + c, 1)
    for r in range(tile):
        for c in range(p.head_size // LANES):
            o.out[o.batch, s + r, T.ramp(o.first_column + c * LANES, 1, LANES)] = s_.sums[
                r, T.ramp(c * LANES, 1, LANES)
            ]
        for c in range(p.head_size % LANES):
            o.out[o.batch, s + r, o.first_column + p.head_size // LANES * LANES + c] = s_.sums[
                r, p.head_size // LANES * LANES + c
            ]


@macro
def _query_tile(p, o, x, s_, s, tile):
    pack_queries(p, o, x, s, tile)
    for r in T.unroll(tile):
        s_.peaks[r] = T.broadcast(T.float32(LOWEST), p.isa.lanes)
    _scores(p, x, s_, tile)
    _weights(p, x, s_, tile)
    _weighted_sum(p, o, x, s_, s, tile)


@macro
def _all_queries(p, o, x, s_):
    for s in range(p.queries // p.tile):
        _query_tile(p, o, x, s_, s * p.tile, p.tile)
    for s in range(p.queries % p.tile):
        _query_tile(p, o, x, s_, p.queries // p.tile * p.tile + s, 1)


@macro
def _one_head(p, o, mask_row):
    rows = T.alloc_buffer((max(GROUP, p.tile), p.columns), "float32")
    key_words = T.alloc_buffer((p.key_vectors, p.words, LANES), "int32")
    key_scales = T.alloc_buffer((p.key_vectors * LANES,), "float32")
    value_words = T.alloc_buffer((p.key_vectors * (LANES // GROUP), p.columns), "int32")
    value_scales = T.alloc_buffer((p.key_vectors * LANES,), "float32")
    query_words = T.alloc_buffer((p.tile, p.words), "int32")
    scores = T.alloc_buffer((p.tile, p.key_vectors * LANES), "float32")
    weights = T.alloc_buffer((p.tile, p.key_vectors * (LANES // GROUP)), "int32")
    sums = T.alloc_buffer((p.tile, p.columns), "float32")
    factors = registers((p.tile,), "float32")
    code_sums = registers((p.tile,), "int32")
    results = registers((p.tile,), "float32")
    peaks = registers((p.tile,), f"float32x{p.isa.lanes}")
    pack_keys(p, o, rows, key_words, key_scales)
    pack_values(p, o, rows, value_words, value_scales)
    _all_queries(
        p,
        o,
        Packed(rows, key_words, key_scales, value_words, value_scales, query_words, factors, code_sums, mask_row),
        Tile(scores, peaks, weights, results, sums),
    )


def int8_attention(isa: Isa, heads: int, head_size: int, *, scale: float) -> tirx.PrimFunc:
    """Builds ``softmax(q k^T * scale + mask) v`` for every head, with sums of integers for both matmuls.

    Sums are exact; everything else is elementwise, a maximum, or a sum of 16 parts (key index mod 16) and one fixed
    tree. A key that is hidden weighs exactly 0, so that padding changes no bit. Where all keys have the lowest score,
    all have the same weight.

    Args:
        isa: Instruction set to compile for.
        heads: Number of heads.
        head_size: Columns of one head.
        scale: Factor on the dot products.

    Returns:
        A function of q float32 ``[B, S, heads*head_size]``, k and v float32 ``[B, T, heads*head_size]``, the additive
        mask float32 ``[B, 1, 1, T]``, and the output float32 ``[B, S, heads*head_size]``.
    """
    width = heads * head_size
    batch, queries, keys = (tirx.Var(name, "int64") for name in ("batch", "queries", "keys"))
    p = Int8Head(isa, head_size, T.float32(float(np.float32(scale))), queries, keys)

    @script.prim_func(s_tir=True)
    def attend(q_: T.handle, k_: T.handle, v_: T.handle, mask_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        mask = T.match_buffer(mask_, (batch, 1, 1, keys), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            for head in T.parallel(batch * heads):
                mask_row = T.alloc_buffer((p.key_vectors * LANES,), "float32")
                copy_mask(p, mask, mask_row, head // heads)
                _one_head(p, Operands(q, k, v, out, head // heads, head % heads * head_size), mask_row)

    return attend


def any_int8_attention(isa: Isa) -> tirx.PrimFunc:
    """Builds :func:`int8_attention` for heads of any number and size.

    Returns:
        A function of the same tensors, then the number of heads (int64) and the factor on the dot products (float32).
    """

    @script.prim_func(s_tir=True)
    def attend(
        q_: T.handle, k_: T.handle, v_: T.handle, mask_: T.handle, y: T.handle, heads: T.int64, scale: T.float32
    ):
        T.func_attr({"tirx.noalias": True})
        batch = T.int64()
        queries = T.int64()
        keys = T.int64()
        width = T.int64()
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        mask = T.match_buffer(mask_, (batch, 1, 1, keys), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            for head in T.parallel(batch * heads):
                mask_row = T.alloc_buffer((tirx.floordiv(keys + (LANES - 1), LANES) * LANES,), "float32")
                copy_mask(Int8Head(isa, width // heads, scale, queries, keys), mask, mask_row, head // heads)
                _one_head(
                    Int8Head(isa, width // heads, scale, queries, keys),
                    Operands(q, k, v, out, head // heads, head % heads * (width // heads)),
                    mask_row,
                )

    return attend
