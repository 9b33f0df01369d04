"""Multi-head attention over ``[batch, sequence, heads * head_size]``, scores and probabilities never leaving a tile."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import LANES, exp, fma, larger, splat, tree_max, tree_sum

QUERY_TILE = 4
"""Queries whose scores are computed together: each loaded key vector is used this many times."""
LOWEST = -3.4028234663852886e38
"""Score of a key that does not exist (padding of the last key vector)."""


def attention(heads: int, head_size: int, *, scale: float, masked: bool) -> tirx.PrimFunc:
    """Builds ``softmax(q k^T * scale + mask) v`` for every head.

    Each score is one accumulator in ascending order of the head dimension, each output one accumulator in ascending
    order of the keys; a softmax sum is 16 partial sums (key index mod 16) and one fixed tree. A key whose score is
    far below the row's largest contributes exactly 0, so padded keys change nothing.

    Args:
        heads: Number of heads.
        head_size: Columns of one head.
        scale: Factor on the dot products.
        masked: Whether there is an additive float mask, one row for all heads and queries.

    Returns:
        A function of q float32 ``[B, S, heads*head_size]``, k and v float32 ``[B, T, heads*head_size]``, (mask float32
        ``[B, 1, 1, T]``,) and the output float32 ``[B, S, heads*head_size]``.
    """
    width = heads * head_size
    full, tail = divmod(head_size, LANES)
    batch, queries, keys = (tirx.Var(name, "int64") for name in ("batch", "queries", "keys"))
    key_vectors = tirx.floordiv(keys + (LANES - 1), LANES)

    def scaled_score(total: Any, mask: Any, first_key: Any) -> Any:
        """Scale and mask; keys past the end get the lowest score."""
        score = fma(total, splat(scale, total), mask)
        index = T.ramp(first_key, T.int64(1), LANES)
        return T.Select(index < T.broadcast(keys, LANES), score, splat(LOWEST, score))

    @macro
    def transpose_keys(k, k_columns, b, h):
        for t in range(keys):
            for d in range(head_size):
                k_columns[d, t] = k[b, t, h * head_size + d]
        for d in range(head_size):
            for t in range(key_vectors * LANES - keys):
                k_columns[d, keys + t] = T.float32(0)

    @macro
    def copy_mask(mask, mask_row, b):
        for t in range(keys):
            mask_row[t] = mask[b, 0, 0, t]
        for t in range(key_vectors * LANES - keys):
            mask_row[keys + t] = T.float32(0)

    @macro
    def no_mask(mask_row):
        for t in range(key_vectors):
            mask_row[T.ramp(t * LANES, 1, LANES)] = T.broadcast(T.float32(0), LANES)

    @macro
    def scores_of(q, k_columns, mask_row, scores, peaks, b, h, s, tile):
        for t in range(key_vectors):
            acc = T.alloc_buffer((tile,), "float32x16", scope="local")
            for r in T.unroll(tile):
                acc[r] = T.broadcast(T.float32(0), LANES)
            for d in range(head_size):
                for r in T.unroll(tile):
                    acc[r] = fma(
                        T.broadcast(q[b, s + r, h * head_size + d], LANES),
                        k_columns[d, T.ramp(t * LANES, 1, LANES)],
                        acc[r],
                    )
            for r in T.unroll(tile):
                scores[r, T.ramp(t * LANES, 1, LANES)] = scaled_score(
                    acc[r], mask_row[T.ramp(t * LANES, 1, LANES)], t * LANES
                )
                peaks[r] = larger(scores[r, T.ramp(t * LANES, 1, LANES)], peaks[r])

    @macro
    def probabilities_of(scores, peaks, sums, r):
        lanes = T.alloc_buffer((LANES,), "float32", scope="local")
        peak = T.alloc_buffer((1,), "float32", scope="local")
        total = T.alloc_buffer((1,), "float32x16", scope="local")
        lanes[T.ramp(0, 1, LANES)] = peaks[r]
        peak[0] = tree_max([lanes[j] for j in range(LANES)])
        total[0] = T.broadcast(T.float32(0), LANES)
        for t in range(key_vectors):
            scores[r, T.ramp(t * LANES, 1, LANES)] = exp(
                scores[r, T.ramp(t * LANES, 1, LANES)] - T.broadcast(peak[0], LANES)
            )
            total[0] = total[0] + scores[r, T.ramp(t * LANES, 1, LANES)]
        lanes[T.ramp(0, 1, LANES)] = total[0]
        sums[r] = tree_sum([lanes[j] for j in range(LANES)])

    @macro
    def weighted_values(v, scores, sums, out, b, h, s, tile):
        for c in range(full):
            acc = T.alloc_buffer((tile,), "float32x16", scope="local")
            for r in T.unroll(tile):
                acc[r] = T.broadcast(T.float32(0), LANES)
            for t in range(keys):
                for r in T.unroll(tile):
                    acc[r] = fma(
                        T.broadcast(scores[r, t], LANES),
                        v[b, t, T.ramp(h * head_size + c * LANES, 1, LANES)],
                        acc[r],
                    )
            for r in T.unroll(tile):
                out[b, s + r, T.ramp(h * head_size + c * LANES, 1, LANES)] = acc[r] / T.broadcast(sums[r], LANES)
        for c in range(tail):
            acc_tail = T.alloc_buffer((tile,), "float32", scope="local")
            for r in T.unroll(tile):
                acc_tail[r] = T.float32(0)
            for t in range(keys):
                for r in T.unroll(tile):
                    acc_tail[r] = fma(scores[r, t], v[b, t, h * head_size + full * LANES + c], acc_tail[r])
            for r in T.unroll(tile):
                out[b, s + r, h * head_size + full * LANES + c] = acc_tail[r] / sums[r]

    @macro
    def query_tile(q, v, out, k_columns, mask_row, scores, b, h, s, tile):
        peaks = T.alloc_buffer((tile,), "float32x16", scope="local")
        sums = T.alloc_buffer((tile,), "float32", scope="local")
        for r in T.unroll(tile):
            peaks[r] = T.broadcast(T.float32(LOWEST), LANES)
        scores_of(q, k_columns, mask_row, scores, peaks, b, h, s, tile)
        for r in T.unroll(tile):
            probabilities_of(scores, peaks, sums, r)
        weighted_values(v, scores, sums, out, b, h, s, tile)

    @macro
    def all_queries(q, v, out, k_columns, mask_row, b, h):
        scores = T.alloc_buffer((QUERY_TILE, key_vectors * LANES), "float32")
        for s in range(queries // QUERY_TILE):
            query_tile(q, v, out, k_columns, mask_row, scores, b, h, s * QUERY_TILE, QUERY_TILE)
        for s in range(queries % QUERY_TILE):
            query_tile(q, v, out, k_columns, mask_row, scores, b, h, queries // QUERY_TILE * QUERY_TILE + s, 1)

    @T.prim_func(s_tir=True)
    def without_mask(q_: T.handle, k_: T.handle, v_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            for head in T.parallel(batch * heads):
                k_columns = T.alloc_buffer((head_size, key_vectors * LANES), "float32")
                mask_row = T.alloc_buffer((key_vectors * LANES,), "float32")
                transpose_keys(k, k_columns, head // heads, head % heads)
                no_mask(mask_row)
                all_queries(q, v, out, k_columns, mask_row, head // heads, head % heads)

    @T.prim_func(s_tir=True)
    def with_mask(q_: T.handle, k_: T.handle, v_: T.handle, mask_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        mask = T.match_buffer(mask_, (batch, 1, 1, keys), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            for head in T.parallel(batch * heads):
                k_columns = T.alloc_buffer((head_size, key_vectors * LANES), "float32")
                mask_row = T.alloc_buffer((key_vectors * LANES,), "float32")
                transpose_keys(k, k_columns, head // heads, head % heads)
                copy_mask(mask, mask_row, head // heads)
                all_queries(q, v, out, k_columns, mask_row, head // heads, head % heads)

    return with_mask if masked else without_mask
