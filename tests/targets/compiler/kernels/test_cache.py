"""Cached attention against numpy; a sequence gets the same bits token by token, at once, alone and in a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.export.ops.low_bit_linear import quantize_activation
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.cached_attention import (
    Columns,
    append_and_attend,
    append_to_cache,
    cached_attention,
)
from edgeq.targets.compiler.kernels.cached_head import CachedHead, Int8CachedHead
from edgeq.targets.compiler.kernels.sequence import last_token, token_positions

CONTEXT = 48


def isa_of(target: str):
    return isa_named(load_target(target).isa)


class Decoder:
    """One attention layer with its cache, as the compiled model calls it."""

    def __init__(self, compile_kernel, head: CachedHead, target: str) -> None:
        self.head = head
        queries, keys, values = (Columns(3 * head.width, part * head.width) for part in range(3))
        self.append = compile_kernel(append_to_cache(head, keys=keys, values=values), target)
        self.attend = compile_kernel(
            cached_attention(isa_of(target), head, queries=queries, scale=head.head_size**-0.5, causal=True), target
        )
        self.reset(1)

    def reset(self, batch: int) -> None:
        self.keys, self.values = empty_caches(self.head, batch)

    def __call__(self, qkv: np.ndarray, past: list[int], new: list[int]) -> np.ndarray:
        past_lengths, new_lengths = np.array(past, np.int64), np.array(new, np.int64)
        self.keys, self.values = self.append(qkv, qkv, past_lengths, new_lengths, self.keys, self.values, outputs=2)
        out = np.full((*qkv.shape[:2], self.head.width), np.nan, np.float32)
        return self.attend(qkv, past_lengths, new_lengths, self.keys, self.values, out)


def empty_caches(head: CachedHead, batch: int) -> tuple[np.ndarray, np.ndarray]:
    shapes = head.key_shape(batch, CONTEXT // 16), head.value_shape(batch, CONTEXT // 16, CONTEXT)
    return np.zeros(shapes[0], head.dtype), np.zeros(shapes[1], head.dtype)


def rounded(x: np.ndarray, head: CachedHead) -> np.ndarray:
    """Keys or values, ``[tokens, width]``, as a cache gives them back: float64."""
    if not head.has_scales:
        return x.astype(head.dtype).astype(np.float64)
    codes, scales = quantize_activation(x.reshape(len(x), head.heads, head.head_size))
    return (codes.astype(np.float64) * scales).reshape(x.shape)


def reference(qkv: np.ndarray, head: CachedHead) -> np.ndarray:
    """Causal attention of one sequence, ``[tokens, 3*width]`` to ``[tokens, width]``, with a rounded cache."""
    q, k, v = np.split(qkv, 3, axis=-1)
    k, v = (rounded(x, head) for x in (k, v))
    rows = []
    for s in range(len(qkv)):
        for h in range(head.heads):
            columns = slice(h * head.head_size, (h + 1) * head.head_size)
            scores = k[: s + 1, columns] @ q[s, columns].astype(np.float64) / np.sqrt(head.head_size)
            weights = np.exp(scores - scores.max())
            rows.append(weights / weights.sum() @ v[: s + 1, columns])
    return np.array(rows).reshape(len(qkv), head.width)


HEADS = [
    *(CachedHead(1, 1, "float16"), CachedHead(2, 37, "float16"), CachedHead(2, 12, "float32")),
    *(Int8CachedHead(1, 1), Int8CachedHead(2, 37), Int8CachedHead(3, 16)),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.dtype}-{head.heads}x{head.head_size}")
def test_cached_attention(head, target, runnable, compile_kernel):
    decoder = Decoder(compile_kernel, head, target)
    qkv = np.random.default_rng(head.heads).standard_normal((1, 41, 3 * head.width)).astype(np.float32)
    at_once = decoder(qkv, [0], [41])
    assert np.allclose(at_once[0], reference(qkv[0], head), rtol=1e-5, atol=1e-5)
    decoder.reset(1)
    one_by_one = [decoder(qkv[:, s : s + 1], [s], [1]) for s in range(41)]
    assert np.array_equal(np.concatenate(one_by_one, axis=1), at_once)
    if target != runnable[0]:
        assert np.array_equal(Decoder(compile_kernel, head, runnable[0])(qkv, [0], [41]), at_once)


@pytest.mark.parametrize("head", [CachedHead(2, 12, "float16"), Int8CachedHead(2, 12)], ids=lambda head: head.dtype)
def test_storing_and_attending_in_one_kernel_is_the_two_kernels(head, target, compile_kernel):
    decoder = Decoder(compile_kernel, head, target)
    queries, keys, values = (Columns(3 * head.width, part * head.width) for part in range(3))
    both = compile_kernel(
        append_and_attend(
            isa_of(target), head, queries=queries, keys=keys, values=values, scale=head.head_size**-0.5
        ),
        target,
    )
    qkv = np.random.default_rng(1).standard_normal((2, 20, 3 * head.width)).astype(np.float32)
    decoder.reset(2)
    key_cache, value_cache = decoder.keys, decoder.values
    for past, new, tokens in (([0, 0], [18, 11], 18), ([18, 11], [1, 1], 1), ([19, 12], [1, 0], 1)):
        expected = decoder(qkv[:, :tokens], past, new)
        key_cache, value_cache, found = both(
            *[qkv[:, :tokens]] * 3, np.array(past), np.array(new), key_cache, value_cache,
            np.full_like(expected, np.nan), outputs=3,
        )  # fmt: skip
        assert np.array_equal(found, expected)
        assert np.array_equal(key_cache, decoder.keys)
        assert np.array_equal(value_cache, decoder.values)


@pytest.mark.parametrize(
    ("one_each", "shared"),
    [
        (CachedHead(6, 12, "float16"), CachedHead(2, 12, "float16", group=3)),
        (Int8CachedHead(6, 12), Int8CachedHead(2, 12, group=3)),
    ],
    ids=["float16", "int8"],
)
def test_a_head_of_keys_serves_several_heads_of_queries(one_each, shared, target, compile_kernel):
    """The same bits as if each head of queries had its own copy of keys and values."""
    qkv = np.random.default_rng(3).standard_normal((2, 20, 72 + 2 * 24)).astype(np.float32)
    q, k, v = np.split(qkv, [72, 96], axis=-1)
    repeated = [np.repeat(x.reshape(2, 20, 2, 12), 3, axis=2).reshape(2, 20, 72) for x in (k, v)]
    options = {"queries": Columns(72, 0), "scale": 0.3}
    run, expect = (
        compile_kernel(append_and_attend(isa_of(target), head, keys=part, values=part, **options), target)
        for head, part in ((shared, Columns(24, 0)), (one_each, Columns(72, 0)))
    )
    caches = [empty_caches(head, 2) for head in (shared, one_each)]
    for start, end, new in ((0, 17, [17, 9]), (17, 20, [3, 3])):
        past = np.array([0, 0] if start == 0 else [17, 9])
        rows, results = slice(start, end), []
        for index, (kernel, keys, values) in enumerate(((run, k, v), (expect, *repeated))):
            inputs = [part[:, rows] for part in (q, keys, values)]
            out = np.full((2, end - start, 72), np.nan, np.float32)
            *cache, found = kernel(*inputs, past, np.array(new), *caches[index], out, outputs=3)
            caches[index] = tuple(cache)
            results.append(found)
        assert np.array_equal(*results)


@pytest.mark.parametrize("head", [CachedHead(2, 12, "float16"), Int8CachedHead(2, 12)], ids=lambda head: head.dtype)
def test_sequences_of_a_batch_do_not_see_each_other(head, compile_kernel, runnable):
    decoder = Decoder(compile_kernel, head, runnable[0])
    qkv = np.random.default_rng(0).standard_normal((3, 20, 3 * head.width)).astype(np.float32)
    alone = []
    for row in qkv:
        decoder.reset(1)
        alone.append(decoder(row[None], [0], [20])[0])
    decoder.reset(3)
    first = decoder(qkv[:, :9], [0, 0, 0], [9, 4, 1])
    lengths = [9, 4, 1]
    for row, length in enumerate(lengths):
        assert np.array_equal(first[row, :length], alone[row][:length])
        assert not first[row, length:].any()
    following = np.stack([qkv[row, length : length + 5] for row, length in enumerate(lengths)])
    second = decoder(following, lengths, [5, 5, 5])
    for row, length in enumerate(lengths):
        assert np.array_equal(second[row], alone[row][length : length + 5])


@pytest.mark.parametrize("head", [CachedHead(2, 12, "float16"), Int8CachedHead(2, 12)], ids=lambda head: head.dtype)
def test_a_source_is_seen_whole_by_every_token(head, compile_kernel, runnable):
    plain = Columns(head.width, 0)
    append = compile_kernel(append_to_cache(head, keys=plain, values=plain), runnable[0])
    attend = compile_kernel(
        cached_attention(isa_of(runnable[0]), head, queries=plain, scale=0.3, causal=False), runnable[0]
    )
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 20, head.width)).astype(np.float32)
    keys, values = append(k, v, np.zeros(1, np.int64), np.array([13]), *empty_caches(head, 1), outputs=2)
    y = attend(q, np.array([13]), np.array([20]), keys, values, np.zeros_like(q))
    for h in range(2):
        columns = slice(h * 12, (h + 1) * 12)
        stored_k, stored_v = (rounded(x[0, :13], head)[:, columns] for x in (k, v))
        scores = q[0, :, columns] @ stored_k.T * 0.3
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        expected = weights / weights.sum(-1, keepdims=True) @ stored_v
        assert np.allclose(y[0, :, columns], expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_codes_and_scales_are_those_of_the_definition(int8_append, data):
    """Of any floats, zeros and the smallest included: what stands in a block is what numpy computes."""
    append, head = int8_append
    floats = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1e-38, -1e-31, 3.4e37])
    states = np.array(data.draw(st.lists(floats, min_size=42, max_size=42)), np.float32).reshape(1, 1, 42)
    slot = data.draw(st.integers(0, CONTEXT - 1))
    caches = empty_caches(head, 1)
    keys, values = append(states, -states, np.array([slot]), np.array([1]), *caches, outputs=2)
    codes, scales = quantize_activation(states.reshape(2, 21))
    block, place = divmod(slot, 16)
    for stored, sign, order in ((keys, 1, (21, 16)), (values, -1, (16, 21))):
        of_block = stored[0, :, block, : 16 * 21].reshape(2, *order)
        found = of_block[:, :, place] if order == (21, 16) else of_block[:, place]
        found_scales = stored[0, :, block, 16 * 21 :].copy().view(np.float32)
        assert np.array_equal(found, sign * codes)
        assert np.array_equal(found_scales[:, place], scales[:, 0])
        # Nothing else is written.
        assert np.count_nonzero(of_block) == np.count_nonzero(codes)
        assert np.count_nonzero(found_scales) == 2
        assert np.count_nonzero(stored) == np.count_nonzero(stored[0, :, block])


@pytest.fixture(scope="module")
def int8_append(compile_kernel, runnable):
    head, plain = Int8CachedHead(2, 21), Columns(42, 0)
    return compile_kernel(append_to_cache(head, keys=plain, values=plain), runnable[0]), head


@pytest.mark.parametrize("head", [CachedHead(1, 4, "float32"), Int8CachedHead(1, 4)], ids=lambda head: head.dtype)
def test_tokens_beyond_the_capacity_are_not_written(head, compile_kernel, runnable):
    decoder = Decoder(compile_kernel, head, runnable[0])
    qkv = np.ones((1, 2, 12), np.float32)
    for past in (CONTEXT, 2**40, -5):
        decoder(qkv, [past], [2])
    assert not decoder.keys.any()
    assert not decoder.values.any()


def test_positions_follow_the_past(compile_kernel):
    ids = np.zeros((2, 3), np.int64)
    y = compile_kernel(token_positions(2))(ids, np.array([4, 0]), np.zeros_like(ids))
    assert np.array_equal(y, [[6, 7, 8], [2, 3, 4]])


def test_the_last_token_of_each_sequence_is_taken(compile_kernel):
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    y = compile_kernel(last_token(3))(x, np.array([1, 4]), np.zeros((2, 3), np.float32))
    assert np.array_equal(y, x[[0, 1], [0, 3]])
