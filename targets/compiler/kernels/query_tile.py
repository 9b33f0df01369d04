"""Several neighbouring queries of one sequence over its cache: keys and values are read and widened once for all.

Query ``r`` of a tile sees ``first_length + r * growth`` keys. Every result is what the query gives alone: keys that
only later queries see get the lowest score, so a weight of exactly 0, and their values are left out of the sum.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.cached_head import LOWEST
from edgeq.targets.compiler.kernels.int8_cache import weigh_by_scales
from edgeq.targets.compiler.kernels.numerics import LANES, fma, larger, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.softmax import softmax_row


@macro
def _scores(p, o, scores, peaks, tile, key_vectors, first_length, growth):
    for t in range(key_vectors):
        acc = registers((tile,), "float32x16")
        for r in T.unroll(tile):
            acc[r] = T.broadcast(T.float32(0), LANES)
        for d in range(p.head_size):
            key = registers((1,), "float32x16")
            key[0] = p.keys(o.key_cache, o.batch, o.head, t, d)
            for r in T.unroll(tile):
                acc[r] = fma(
                    T.broadcast(o.q[o.batch, o.query + r, o.q_first + o.first_column + d], LANES), key[0], acc[r]
                )
        for r in T.unroll(tile):
            acc[r] = p.score(o, acc[r], t, first_length + r * growth)
            scores[r, T.ramp(t * LANES, 1, LANES)] = acc[r]
            peaks[r] = larger(acc[r], peaks[r])


@macro
def _weighted_sums(p, o, scores, sums, tile, first_length, growth):
    for c in range(p.head_size // LANES):
        acc = registers((tile,), "float32x16")
        value = registers((1,), "float32x16")
        for r in T.unroll(tile):
            acc[r] = T.broadcast(T.float32(0), LANES)
        for t in range(first_length):
            value[0] = p.values(o.value_cache, o.batch, o.head, t, c * LANES)
            for r in T.unroll(tile):
                acc[r] = fma(T.broadcast(scores[r, t], LANES), value[0], acc[r])
        for r in T.unroll(tile):
            for t in range(r * growth):
                acc[r] = fma(
                    T.broadcast(scores[r, first_length + t], LANES),
                    p.values(o.value_cache, o.batch, o.head, first_length + t, c * LANES),
                    acc[r],
                )
            o.out[o.batch, o.query + r, T.ramp(o.first_column + c * LANES, 1, LANES)] = acc[r] / T.broadcast(
                sums[r], LANES
            )
    for column in range(p.head_size // LANES * LANES, p.head_size):
        for r in range(tile):
            last = registers((1,), "float32")
            last[0] = T.float32(0)
            for t in range(first_length + r * growth):
                last[0] = fma(scores[r, t], p.value(o.value_cache, o.batch, o.head, t, column), last[0])
            o.out[o.batch, o.query + r, o.first_column + column] = last[0] / sums[r]


@macro
def query_tile(p, o, scores, tile, first_length, growth):
    """Attention of the queries ``o.query .. o.query + tile - 1``, which all have at least one key."""
    peaks = registers((tile,), "float32x16")
    sums = registers((tile,), "float32")
    key_vectors = registers((1,), "int64")
    for r in T.unroll(tile):
        peaks[r] = T.broadcast(T.float32(LOWEST), LANES)
    key_vectors[0] = tirx.floordiv(first_length + ((tile - 1) * growth + LANES - 1), LANES)
    _scores(p, o, scores, peaks, tile, key_vectors[0], first_length, growth)
    for r in range(tile):
        softmax_row(scores, peaks, sums, r, key_vectors[0])
        if p.has_scales:
            weigh_by_scales(p, o, scores, r, key_vectors[0])
    _weighted_sums(p, o, scores, sums, tile, first_length, growth)
