"""Causal attention over a key/value cache that is updated in place.

Keys are stored as ``[batch, heads, context/16, head_size, 16]``: a vector holds one column of 16 neighbouring keys,
so that nothing is transposed when they are read. Values are ``[batch, heads, context, head_size]``. As int8, both are
blocks of 16 tokens with their scales (:mod:`edgeq.targets.compiler.cache_layout`). Each sequence of a batch is stored
from slot 0 with a length of its own; there is no padding in the cache, so a sequence gets the same bits alone and in a
batch. Order of every sum: as in :mod:`edgeq.targets.compiler.kernels.attention`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.cached_head import LOWEST, CachedHead
from edgeq.targets.compiler.kernels.int8_cache import append_codes, weigh_by_scales
from edgeq.targets.compiler.kernels.numerics import LANES, converted, fma, larger, prefetch, registers
from edgeq.targets.compiler.kernels.query_tile import query_tile
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS
from edgeq.targets.compiler.kernels.softmax import softmax_row

BLOCKS = 4
"""Key vectors of a tile: their sums are independent, which hides the latency of the multiply-accumulates."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where queries, keys or values stand in the rows of a tensor.

    Attributes:
        row: Columns of a row.
        first: First of the ``heads * head_size`` columns that are meant: one matmul may give all three.
    """

    row: int
    first: int


class Operands(NamedTuple):
    """Buffers of one call, and the query that is being computed."""

    q: Any
    q_first: int
    scale: float
    key_cache: Any
    value_cache: Any
    out: Any
    batch: Any
    head: Any
    query: Any
    first_column: Any
    """Of the head of queries, among those of all heads."""


@macro
def _score_blocks(p, o, scores, peak, first_block, blocks, length):
    acc = registers((blocks,), "float32x16")
    for b in T.unroll(blocks):
        acc[b] = T.broadcast(T.float32(0), LANES)
    for d in range(p.head_size):
        if d < blocks * LANES:  # the values of these keys, which are read next
            for line in T.unroll(p.value_lines):
                prefetch(p.value_place(o.value_cache, o.batch, o.head, first_block * LANES + d, line * p.line))
        for b in T.unroll(blocks):
            acc[b] = fma(
                T.broadcast(o.q[o.batch, o.query, o.q_first + o.first_column + d], LANES),
                p.keys(o.key_cache, o.batch, o.head, first_block + b, d),
                acc[b],
            )
    for b in T.unroll(blocks):
        acc[b] = p.score(o, acc[b], first_block + b, length)
        scores[0, T.ramp((first_block + b) * LANES, 1, LANES)] = acc[b]
        peak[0] = larger(acc[b], peak[0])


@macro
def _weighted_sum(p, o, scores, total, length):
    acc = registers((p.head_size // LANES + 1,), "float32x16")
    for c in T.unroll(p.head_size // LANES):
        acc[c] = T.broadcast(T.float32(0), LANES)
    for t in range(length):
        for c in T.unroll(p.head_size // LANES):
            acc[c] = fma(
                T.broadcast(scores[0, t], LANES), p.values(o.value_cache, o.batch, o.head, t, c * LANES), acc[c]
            )
    for c in T.unroll(p.head_size // LANES):
        o.out[o.batch, o.query, T.ramp(o.first_column + c * LANES, 1, LANES)] = acc[c] / T.broadcast(
            total[0], LANES
        )
    for column in range(p.head_size // LANES * LANES, p.head_size):
        last = registers((1,), "float32")
        last[0] = T.float32(0)
        for t in range(length):
            last[0] = fma(scores[0, t], p.value(o.value_cache, o.batch, o.head, t, column), last[0])
        o.out[o.batch, o.query, o.first_column + column] = last[0] / total[0]


@macro
def _query(p, o, scores, length):
    peak = registers((1,), "float32x16")
    total = registers((1,), "float32")
    peak[0] = T.broadcast(T.float32(LOWEST), LANES)
    key_vectors = registers((1,), "int64")
    key_vectors[0] = tirx.floordiv(length + (LANES - 1), LANES)
    for tile in range(key_vectors[0] // BLOCKS):
        _score_blocks(p, o, scores, peak, tile * BLOCKS, BLOCKS, length)
    for rest in range(key_vectors[0] % BLOCKS):
        _score_blocks(p, o, scores, peak, key_vectors[0] // BLOCKS * BLOCKS + rest, 1, length)
    softmax_row(scores, peak, total, 0, key_vectors[0])
    if p.has_scales:
        weigh_by_scales(p, o, scores, 0, key_vectors[0])
    _weighted_sum(p, o, scores, total, length)


@macro
def _append_head(p, k, v, k_first, v_first, past, new, key_cache, value_cache, task, tokens, capacity):
    for s in range(tokens):
        slot = registers((1,), "int64")
        slot[0] = past[task // p.heads] + s
        if s < new[task // p.heads] and slot[0] >= 0 and slot[0] < capacity:
            if p.has_scales:
                append_codes(
                    p, k, v, k_first + task % p.heads * p.head_size, v_first + task % p.heads * p.head_size,
                    key_cache, value_cache, task // p.heads, task % p.heads, s, slot[0],
                )  # fmt: skip
            else:
                for d in range(p.head_size):
                    key_cache[task // p.heads, task % p.heads, slot[0] // LANES, d, slot[0] % LANES] = converted(
                        k[task // p.heads, s, k_first + task % p.heads * p.head_size + d], p.dtype
                    )
                    value_cache[task // p.heads, task % p.heads, slot[0], d] = converted(
                        v[task // p.heads, s, v_first + task % p.heads * p.head_size + d], p.dtype
                    )


def append_to_cache(head: CachedHead, *, keys: Columns, values: Columns) -> tirx.PrimFunc:
    """Builds the function that stores the keys and values of new tokens behind those of their sequence.

    Tokens beyond ``new[b]`` (right padding of a batch) and slots beyond the capacity are not written; the runtimes
    refuse a sequence that would not fit.

    Returns:
        A function of the tensors with keys and with values, float32 ``[B, S, row]``, past and new lengths int64
        ``[B]``, and the caches, which it changes in place: keys and values as ``head`` stores them.
    """
    p = head
    batch, tokens, blocks = (tirx.Var(n, "int64") for n in ("batch", "tokens", "blocks"))
    capacity = p.capacity(blocks)

    @script.prim_func(s_tir=True)
    def append(
        k_: T.handle, v_: T.handle, past_: T.handle, new_: T.handle, key_cache_: T.handle, value_cache_: T.handle
    ):
        # No "noalias" here: keys and values may be columns of one tensor.
        k = T.match_buffer(k_, (batch, tokens, keys.row), "float32")
        v = T.match_buffer(v_, (batch, tokens, values.row), "float32")
        past = T.match_buffer(past_, (batch,), "int64")
        new = T.match_buffer(new_, (batch,), "int64")
        key_cache = T.match_buffer(key_cache_, p.key_shape(batch, blocks), p.dtype)
        value_cache = T.match_buffer(value_cache_, p.value_shape(batch, blocks, capacity), p.dtype)
        with T.sblock("root"):
            if tokens < PARALLEL_ROWS:
                for task in range(batch * p.heads):
                    _append_head(
                        p, k, v, keys.first, values.first, past, new, key_cache, value_cache, task, tokens, capacity
                    )
            else:
                for task in T.parallel(batch * p.heads):
                    _append_head(
                        p, k, v, keys.first, values.first, past, new, key_cache, value_cache, task, tokens, capacity
                    )

    return append


@macro
def _attend_head(
    p, q, columns, scale, past, new, key_cache, value_cache, out, task, first, tokens, blocks, capacity, growth, tile
):
    """All queries of one head of one sequence."""
    scores = T.alloc_buffer((tile, blocks * LANES), "float32")
    tiled = registers((1,), "int64")
    length = registers((1,), "int64")
    # Tiles are for sequences that fit into the cache; the runtimes refuse others.
    tiled[0] = T.Select(
        T.And(past[task // p.heads] >= 1 - growth, past[task // p.heads] + tokens * growth <= capacity),
        T.max(T.min(new[task // p.heads], tokens), T.int64(0)) // tile,
        T.int64(0),
    )
    for group in range(tiled[0]):
        query_tile(
            p,
            Operands(
                q, columns.first, scale, key_cache, value_cache, out, task // p.heads, task % p.heads, group * tile,
                first,
            ),
            scores, tile, past[task // p.heads] + (group * tile + 1) * growth, growth,
        )  # fmt: skip
    for s in range(tiled[0] * tile, tokens):
        length[0] = T.min(past[task // p.heads] + (s + 1) * growth, capacity)
        if s < new[task // p.heads] and length[0] > 0:
            _query(
                p,
                Operands(
                    q, columns.first, scale, key_cache, value_cache, out, task // p.heads, task % p.heads, s, first
                ),
                scores,
                length[0],
            )
        else:
            for d in range(p.head_size):
                out[task // p.heads, s, first + d] = T.float32(0)


@macro
def _attend_group(
    p, q, columns, scale, past, new, key_cache, value_cache, out, task, tokens, blocks, capacity, growth, tile
):
    """All queries of the heads that look at one head of keys of one sequence."""
    for member in range(p.group):
        _attend_head(
            p, q, columns, scale, past, new, key_cache, value_cache, out, task,
            (task % p.heads * p.group + member) * p.head_size, tokens, blocks, capacity, growth, tile,
        )  # fmt: skip


def cached_attention(isa: Isa, head: CachedHead, *, queries: Columns, scale: float, causal: bool) -> tirx.PrimFunc:
    """Builds attention of new tokens over what their sequence holds in the cache.

    Args:
        isa: Instruction set to compile for (its register count sets the tile, which changes no result).
        head: Heads and their cache.
        queries: Where the queries are.
        scale: Factor on the dot products.
        causal: Whether token ``s`` of sequence ``b`` sees the slots ``0 .. past[b] + s`` (its own is already there),
            or all of ``0 .. past[b] - 1``: the keys of an encoder input that was read before.

    Returns:
        A function of the tensor with queries float32 ``[B, S, row]``, past and new lengths int64 ``[B]``, keys and
        values as ``head`` stores them, and the output float32 ``[B, S, width]``. Padding tokens (``s >= new[b]``) give
        zeros.
    """
    p, growth = head, int(causal)
    batch, tokens, blocks = (tirx.Var(n, "int64") for n in ("batch", "tokens", "blocks"))
    capacity = p.capacity(blocks)

    @script.prim_func(s_tir=True)
    def attend(
        q_: T.handle, past_: T.handle, new_: T.handle, key_cache_: T.handle, value_cache_: T.handle, y: T.handle
    ):
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, tokens, queries.row), "float32")
        past = T.match_buffer(past_, (batch,), "int64")
        new = T.match_buffer(new_, (batch,), "int64")
        key_cache = T.match_buffer(key_cache_, p.key_shape(batch, blocks), p.dtype)
        value_cache = T.match_buffer(value_cache_, p.value_shape(batch, blocks, capacity), p.dtype)
        out = T.match_buffer(y, (batch, tokens, p.width), "float32")
        with T.sblock("root"):
            for task in T.parallel(batch * p.heads):
                _attend_group(
                    p, q, queries, scale, past, new, key_cache, value_cache, out, task, tokens, blocks, capacity,
                    growth, isa.row_tile,
                )  # fmt: skip

    return attend


def append_and_attend(
    isa: Isa, head: CachedHead, *, queries: Columns, keys: Columns, values: Columns, scale: float
) -> tirx.PrimFunc:
    """Builds :func:`append_to_cache` and then causal :func:`cached_attention`, each head in one task.

    Returns:
        A function of the tensors with queries, keys and values, float32 ``[B, S, row]``, past and new lengths int64
        ``[B]``, the caches, which it changes in place, and the output float32 ``[B, S, width]``.
    """
    p = head
    batch, tokens, blocks = (tirx.Var(n, "int64") for n in ("batch", "tokens", "blocks"))
    capacity = p.capacity(blocks)

    @script.prim_func(s_tir=True)
    def attend(
        q_: T.handle, k_: T.handle, v_: T.handle, past_: T.handle, new_: T.handle,
        key_cache_: T.handle, value_cache_: T.handle, y: T.handle,
    ):  # fmt: skip
        # Queries, keys and values may be columns of one tensor: nothing writes to them, so nothing aliases.
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_, (batch, tokens, queries.row), "float32")
        k = T.match_buffer(k_, (batch, tokens, keys.row), "float32")
        v = T.match_buffer(v_, (batch, tokens, values.row), "float32")
        past = T.match_buffer(past_, (batch,), "int64")
        new = T.match_buffer(new_, (batch,), "int64")
        key_cache = T.match_buffer(key_cache_, p.key_shape(batch, blocks), p.dtype)
        value_cache = T.match_buffer(value_cache_, p.value_shape(batch, blocks, capacity), p.dtype)
        out = T.match_buffer(y, (batch, tokens, p.width), "float32")
        with T.sblock("root"):
            for task in T.parallel(batch * p.heads):
                _append_head(
                    p, k, v, keys.first, values.first, past, new, key_cache, value_cache, task, tokens, capacity
                )
                _attend_group(
                    p, q, queries, scale, past, new, key_cache, value_cache, out, task, tokens, blocks, capacity, 1,
                    isa.row_tile,
                )  # fmt: skip

    return attend
