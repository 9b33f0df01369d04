"""Multi-head attention over ``[batch, sequence, heads * head_size]``, scores and probabilities never leaving a tile.

One head of one sequence is a task. Its keys are transposed once, so that a vector holds the same column of 16 keys, and
its values are brought together; then tiles of a few queries go through scores, softmax and weighted sum while their
scores stay in cache.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.cached_head import LOWEST
from edgeq.targets.compiler.kernels.numerics import LANES, fma, larger, registers, splat
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.softmax import softmax_row


class Operands(NamedTuple):
    """Buffers of one call, and the head that is being computed."""

    q: Any
    k: Any
    v: Any
    out: Any
    batch: Any
    first_column: Any
    bias: Any = None
    head: Any = None

    def bias_of(self, query: Any, key: Any) -> Any:
        """The bias of one score; axes of size 1 serve all batches, heads or queries."""
        place = (
            0 if size_is_one else index
            for size_is_one, index in zip(map(_is_one, self.bias.shape), (self.batch, self.head, query), strict=False)
        )
        return self.bias[(*place, key)]


def _is_one(size: Any) -> bool:
    return isinstance(size, (int, tirx.IntImm)) and int(size) == 1


@dataclasses.dataclass(frozen=True)
class AttentionHead:
    """What is fixed when the kernel is built, and the symbolic sizes.

    Attributes:
        head_size: Columns of a head.
        scale: Factor on the dot products.
        tile: Queries of a full tile.
        panels: Vectors of keys, or of output columns, of a full tile: one or two.
        queries: Number of queries (symbolic).
        keys: Number of keys (symbolic).
        masked: Whether there is a mask, one row for all queries.
        biased: Whether each query has a bias of its own.
    """

    head_size: int
    scale: float
    tile: int
    panels: int
    queries: Any
    keys: Any
    masked: bool = False
    biased: bool = False

    @property
    def key_vectors(self) -> Any:
        """Vectors of 16 keys, the last one padded."""
        return tirx.floordiv(self.keys + (LANES - 1), LANES)

    @property
    def column_vectors(self) -> int:
        """Whole vectors of 16 columns."""
        return self.head_size // LANES

    def score(self, total: Any, added: Any, first_key: Any) -> Any:
        """Scales 16 dot products and adds mask and bias; keys past the end always get a weight of 0."""
        score = fma(total, splat(self.scale, total), added)
        index = T.ramp(first_key, T.int64(1), LANES)
        return T.Select(index < T.broadcast(self.keys, LANES), score, splat(-math.inf, score))

    def added(self, mask_row: Any, scores: Any, row: Any, first_key: Any) -> Any:
        """What is added to 16 scores: the mask of all queries, or what :func:`_copy_bias` left for this one."""
        place = T.ramp(first_key, 1, LANES)
        return scores[row, place] if self.biased else mask_row[place]


@macro
def _transpose_keys(p, o, k_columns):
    for t in range(p.keys):
        for d in range(p.head_size):
            k_columns[t // LANES, d, t % LANES] = o.k[o.batch, t, o.first_column + d]
    if p.keys % LANES > 0:
        for d in range(p.head_size):
            for t in range(p.key_vectors * LANES - p.keys):
                k_columns[p.key_vectors - 1, d, p.keys % LANES + t] = T.float32(0)


@macro
def _gather_values(p, o, v_rows):
    """Rows of a head lie a few pages apart, where they share few places in the cache."""
    for t in range(p.keys):
        for c in range(p.column_vectors):
            v_rows[t, T.ramp(c * LANES, 1, LANES)] = o.v[o.batch, t, T.ramp(o.first_column + c * LANES, 1, LANES)]
        for c in range(p.head_size % LANES):
            v_rows[t, p.column_vectors * LANES + c] = o.v[o.batch, t, o.first_column + p.column_vectors * LANES + c]


@macro
def copy_mask(p, mask, mask_row, batch):
    """Copies the mask of one sequence, padded with zeros to whole vectors of keys."""
    for t in range(p.keys):
        mask_row[t] = mask[batch, 0, 0, t]
    for t in range(p.key_vectors * LANES - p.keys):
        mask_row[p.keys + t] = T.float32(0)


@macro
def _no_mask(p, mask_row):
    for t in range(p.key_vectors):
        mask_row[T.ramp(t * LANES, 1, LANES)] = T.broadcast(T.float32(0), LANES)


@macro
def _copy_bias(p, o, mask_row, scores, s, tile):
    """Leaves mask and bias where the scores of a tile of queries will be."""
    for r in range(tile):
        for t in range(p.keys):
            scores[r, t] = o.bias_of(s + r, t) + mask_row[t]
        for t in range(p.key_vectors * LANES - p.keys):
            scores[r, p.keys + t] = T.float32(0)


@macro
def _scores_of(p, o, k_columns, mask_row, scores, peaks, s, tile, t, panels):
    """Scores of a tile of queries with ``panels`` vectors of keys, from vector ``t`` on."""
    acc = registers((tile * panels,), "float32x16")
    for a in T.unroll(tile * panels):
        acc[a] = T.broadcast(T.float32(0), LANES)
    for d in range(p.head_size):
        for r in T.unroll(tile):
            for i in T.unroll(panels):
                acc[r * panels + i] = fma(
                    T.broadcast(o.q[o.batch, s + r, o.first_column + d], LANES),
                    k_columns[t + i, d, T.ramp(0, 1, LANES)],
                    acc[r * panels + i],
                )
    for r in T.unroll(tile):
        for i in T.unroll(panels):
            acc[r * panels + i] = p.score(
                acc[r * panels + i], p.added(mask_row, scores, r, (t + i) * LANES), (t + i) * LANES
            )
            scores[r, T.ramp((t + i) * LANES, 1, LANES)] = acc[r * panels + i]
            peaks[r] = larger(acc[r * panels + i], peaks[r])


@macro
def _scores(p, o, k_columns, mask_row, scores, peaks, s, tile):
    for t in range(p.key_vectors // p.panels):
        _scores_of(p, o, k_columns, mask_row, scores, peaks, s, tile, t * p.panels, p.panels)
    for t in range(p.key_vectors % p.panels):
        _scores_of(p, o, k_columns, mask_row, scores, peaks, s, tile, p.key_vectors // p.panels * p.panels + t, 1)


@macro
def _weighted_sum_of(p, o, v_rows, scores, sums, s, tile, column, panels):
    """``panels`` vectors of output columns, from ``column`` on, for a tile of queries."""
    acc = registers((tile * panels,), "float32x16")
    for a in T.unroll(tile * panels):
        acc[a] = T.broadcast(T.float32(0), LANES)
    for t in range(p.keys):
        for r in T.unroll(tile):
            for i in T.unroll(panels):
                acc[r * panels + i] = fma(
                    T.broadcast(scores[r, t], LANES),
                    v_rows[t, T.ramp(column + i * LANES, 1, LANES)],
                    acc[r * panels + i],
                )
    for r in T.unroll(tile):
        for i in T.unroll(panels):
            o.out[o.batch, s + r, T.ramp(o.first_column + column + i * LANES, 1, LANES)] = acc[
                r * panels + i
            ] / T.broadcast(sums[r], LANES)


@macro
def _weighted_sum(p, o, v_rows, scores, sums, s, tile):
    for c in range(p.column_vectors // p.panels):
        _weighted_sum_of(p, o, v_rows, scores, sums, s, tile, c * p.panels * LANES, p.panels)
    if p.column_vectors % p.panels > 0:
        _weighted_sum_of(p, o, v_rows, scores, sums, s, tile, (p.column_vectors - 1) * LANES, 1)
    for c in range(p.head_size % LANES):
        last = registers((tile,), "float32")
        for r in T.unroll(tile):
            last[r] = T.float32(0)
        for t in range(p.keys):
            for r in T.unroll(tile):
                last[r] = fma(scores[r, t], v_rows[t, p.column_vectors * LANES + c], last[r])
        for r in T.unroll(tile):
            o.out[o.batch, s + r, o.first_column + p.column_vectors * LANES + c] = last[r] / sums[r]


@macro
def _query_tile(p, o, k_columns, v_rows, mask_row, scores, s, tile):
    peaks = registers((tile,), "float32x16")
    sums = registers((tile,), "float32")
    for r in T.unroll(tile):
        peaks[r] = T.broadcast(T.float32(LOWEST), LANES)
    if p.biased:
        _copy_bias(p, o, mask_row, scores, s, tile)
    _scores(p, o, k_columns, mask_row, scores, peaks, s, tile)
    for r in range(tile):
        softmax_row(scores, peaks, sums, r, p.key_vectors)
    _weighted_sum(p, o, v_rows, scores, sums, s, tile)


@macro
def _all_queries(p, o, k_columns, v_rows, mask_row):
    scores = T.alloc_buffer((p.tile, p.key_vectors * LANES), "float32")
    for s in range(p.queries // p.tile):
        _query_tile(p, o, k_columns, v_rows, mask_row, scores, s * p.tile, p.tile)
    for s in range(p.queries % p.tile):
        _query_tile(p, o, k_columns, v_rows, mask_row, scores, p.queries // p.tile * p.tile + s, 1)


@macro
def _one_head(p, o, mask_row):
    k_columns = T.alloc_buffer((p.key_vectors, p.head_size, LANES), "float32")
    v_rows = T.alloc_buffer((p.keys, p.head_size), "float32")
    _transpose_keys(p, o, k_columns)
    _gather_values(p, o, v_rows)
    _all_queries(p, o, k_columns, v_rows, mask_row)


@macro
def _every_head(p, heads, batch, q, k, v, out, mask, biases):
    """``mask`` and ``biases`` are None where there are none."""
    for head in T.parallel(batch * heads):
        mask_row = T.alloc_buffer((p.key_vectors * LANES,), "float32")
        if p.masked:
            copy_mask(p, mask, mask_row, head // heads)
        else:
            _no_mask(p, mask_row)
        _one_head(
            p, Operands(q, k, v, out, head // heads, head % heads * p.head_size, biases, head % heads), mask_row
        )


def attention(
    isa: Isa, heads: int, head_size: int, *, scale: float, masked: bool, bias: tuple[bool, bool, bool] | None = None
) -> tirx.PrimFunc:
    """Builds ``softmax(q k^T * scale + mask + bias) v`` for every head.

    Each score is one accumulator in ascending order of the head dimension, each output one accumulator in ascending
    order of the keys; a softmax sum is 16 partial sums (key index mod 16) and one fixed tree. A key whose score is
    far below the row's largest contributes exactly 0, so padded keys change nothing. Where all keys have the lowest
    score, which is what a row without any token comes to, all have the same weight.

    Args:
        isa: Instruction set to compile for (its register count sets the tile, which changes no result).
        heads: Number of heads.
        head_size: Columns of one head.
        scale: Factor on the dot products.
        masked: Whether there is an additive float mask, one row for all heads and queries.
        bias: Whether there is an additive float bias, and then whether it has a row for each sequence of the batch,
            each head, and each query, or one for all.

    Returns:
        A function of q float32 ``[B, S, heads*head_size]``, k and v float32 ``[B, T, heads*head_size]``, (mask float32
        ``[B, 1, 1, T]``,) (bias float32 ``[B or 1, heads or 1, S or 1, T]``,) and the output float32
        ``[B, S, heads*head_size]``.
    """
    batch, queries, keys = (tirx.Var(name, "int64") for name in ("batch", "queries", "keys"))
    p = AttentionHead(
        head_size, scale, isa.row_tile, isa.float_panels, queries, keys, masked=masked, biased=bias is not None
    )
    if bias is None:
        return (_with_mask if masked else _plain)(p, heads, batch)
    bias_shape = (*(size if own else 1 for own, size in zip(bias, (batch, heads, queries), strict=True)), keys)
    return (_with_mask_and_bias if masked else _with_bias)(p, heads, batch, bias_shape)


def _plain(p: AttentionHead, heads: int, batch: Any) -> tirx.PrimFunc:
    queries, keys, width = p.queries, p.keys, heads * p.head_size

    @script.prim_func(s_tir=True)
    def plain(q_: T.handle, k_: T.handle, v_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            _every_head(p, heads, batch, q, k, v, out, None, None)

    return plain


def _with_mask(p: AttentionHead, heads: int, batch: Any) -> tirx.PrimFunc:
    queries, keys, width = p.queries, p.keys, heads * p.head_size

    @script.prim_func(s_tir=True)
    def with_mask(q_: T.handle, k_: T.handle, v_: T.handle, mask_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        mask = T.match_buffer(mask_, (batch, 1, 1, keys), "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            _every_head(p, heads, batch, q, k, v, out, mask, None)

    return with_mask


def _with_bias(p: AttentionHead, heads: int, batch: Any, bias_shape: tuple[Any, ...]) -> tirx.PrimFunc:
    queries, keys, width = p.queries, p.keys, heads * p.head_size

    @script.prim_func(s_tir=True)
    def with_bias(q_: T.handle, k_: T.handle, v_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        biases = T.match_buffer(bias_, bias_shape, "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            _every_head(p, heads, batch, q, k, v, out, None, biases)

    return with_bias


def _with_mask_and_bias(p: AttentionHead, heads: int, batch: Any, bias_shape: tuple[Any, ...]) -> tirx.PrimFunc:
    queries, keys, width = p.queries, p.keys, heads * p.head_size

    @script.prim_func(s_tir=True)
    def with_mask_and_bias(q_: T.handle, k_: T.handle, v_: T.handle, mask_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, queries, width), "float32")
        k = T.match_buffer(k_, (batch, keys, width), "float32")
        v = T.match_buffer(v_, (batch, keys, width), "float32")
        mask = T.match_buffer(mask_, (batch, 1, 1, keys), "float32")
        biases = T.match_buffer(bias_, bias_shape, "float32")
        out = T.match_buffer(y, (batch, queries, width), "float32")
        with T.sblock("root"):
            _every_head(p, heads, batch, q, k, v, out, mask, biases)

    return with_mask_and_bias
