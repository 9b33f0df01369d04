"""Layer normalisation, attention and table look-ups against numpy, and the same bits on every instruction set."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.attention import attention
from edgeq.targets.compiler.kernels.gather_rows import gather_rows
from edgeq.targets.compiler.kernels.head_matmul import head_matmul
from edgeq.targets.compiler.kernels.layer_norm import layer_norm
from edgeq.targets.compiler.kernels.low_bit_embedding import low_bit_embedding
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.compiler.kernels.quantized_layer_norm import quantized_layer_norm
from edgeq.targets.compiler.kernels.rotary import Turns, rotary

LOWEST = np.finfo(np.float32).min


@pytest.fixture
def run_everywhere(compile_kernel, runnable):
    """Runs a kernel, or what makes one for an instruction set, on every one here and holds the results equal."""
    def run(kernel, calls):
        isas = [isa_named(load_target(name).isa) for name in runnable]
        kernels = [kernel(isa) if inspect.isfunction(kernel) else kernel for isa in isas]
        runs = [compile_kernel(one, name) for one, name in zip(kernels, runnable, strict=True)]
        results = [[one(*arrays) for arrays in calls] for one in runs]
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
        return results[0]

    return run


@pytest.mark.parametrize(("columns", "residual"), [(1, True), (5, False), (16, False), (37, True)])
def test_layer_norm(columns, residual, run_everywhere):
    generator = np.random.default_rng(columns)
    gamma, beta = generator.standard_normal((2, columns)).astype(np.float32)
    inputs = [generator.standard_normal((2, 2, rows, columns)).astype(np.float32) + 3 for rows in (0, 1, 7)]
    calls = [(*(x if residual else x[:1]), gamma, beta, np.zeros_like(x[0])) for x in inputs]
    found = run_everywhere(layer_norm(columns, rank=2, epsilon=1e-5, residual=residual), calls)
    for x, y in zip(inputs, found, strict=True):
        total = (x[0] + x[1] if residual else x[0]).astype(np.float64)
        centred = total - total.mean(-1, keepdims=True)
        expected = centred / np.sqrt(total.var(-1, keepdims=True) + 1e-5) * gamma + beta
        assert np.allclose(y, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("columns", [5, 37])
def test_a_row_divided_by_its_root_mean_square(columns, run_everywhere):
    generator = np.random.default_rng(columns)
    gamma, beta = generator.standard_normal(columns).astype(np.float32), np.zeros(columns, np.float32)
    x = generator.standard_normal((2, 9, columns)).astype(np.float32) + 1
    kernel = layer_norm(columns, rank=2, epsilon=1e-5, residual=False, centred=False)
    [y] = run_everywhere(kernel, [(x, gamma, beta, np.zeros_like(x))])
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * gamma
    assert np.allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("turns", [Turns(3, 10, 5, 30), Turns(2, 70, 17, 9), Turns(1, 2, 1, 4)])
def test_pairs_of_columns_are_turned_by_their_position(turns, run_everywhere):
    generator = np.random.default_rng(turns.pairs)
    angles = generator.random((turns.positions, turns.pairs)) * 7
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    calls, expected = [], []
    for tokens in (1, 11):
        x = generator.standard_normal((2, tokens, turns.width)).astype(np.float32)
        positions = generator.integers(0, turns.positions, (2, tokens))
        calls.append((x, cosines, sines, positions, np.zeros_like(x)))
        heads = x.reshape(2, tokens, turns.heads, turns.head_size).astype(np.float64)
        a, b = heads[..., : turns.pairs], heads[..., turns.pairs : 2 * turns.pairs]
        c, s = (table[positions][:, :, None].astype(np.float64) for table in (cosines, sines))
        turned = np.concatenate([a * c - b * s, b * c + a * s, heads[..., 2 * turns.pairs :]], axis=-1)
        expected.append(turned.reshape(x.shape))
    for found, wanted in zip(run_everywhere(rotary(turns), calls), expected, strict=True):
        assert np.allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("columns", "residual"), [(37, False), pytest.param(80, True, marks=pytest.mark.slow)])
def test_layer_norm_with_codes_is_the_two_kernels(columns, residual, compile_kernel, runnable):
    generator = np.random.default_rng(columns)
    gamma, beta = generator.standard_normal((2, columns)).astype(np.float32)
    options = {"rank": 2, "epsilon": 1e-5, "residual": residual}
    norm = compile_kernel(layer_norm(columns, **options))
    quantizer = compile_kernel(quantize_rows(columns, rank=2, static=False))
    both = [compile_kernel(quantized_layer_norm(columns, **options), name) for name in runnable]
    for rows in (0, 1, 9):
        x = generator.standard_normal((2, 2, rows, columns)).astype(np.float32)
        inputs = [*(x if residual else x[:1]), gamma, beta]
        y = norm(*inputs, np.zeros_like(x[0]))
        empty = [np.zeros((2, rows, padded_columns(columns) // 4), np.int32)]
        empty += [np.zeros((2, rows), np.float32), np.zeros((2, rows), np.int32)]
        expected = [y, *quantizer(y, *empty, outputs=3)]
        for run in both:
            found = run(*inputs, np.zeros_like(y), *empty, outputs=4)
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def attention_reference(q, k, v, mask, heads):
    def split(x):
        return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3).astype(np.float64)

    scores = split(q) @ split(k).transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1] / heads)
    scores = scores + (0 if mask is None else mask)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights @ split(v)).transpose(0, 2, 1, 3).reshape(q.shape)


@pytest.mark.parametrize(
    ("heads", "head_size", "masked"), [(1, 1, True), (3, 12, False), (2, 32, False), (2, 37, True)]
)
def test_attention(heads, head_size, masked, run_everywhere):
    generator = np.random.default_rng(heads)
    width = heads * head_size
    cases = []
    for batch, queries, keys in ((1, 1, 1), (2, 5, 7), (1, 3, 16), (3, 17, 33), (0, 4, 4)):
        q = generator.standard_normal((batch, queries, width)).astype(np.float32)
        k, v = generator.standard_normal((2, batch, keys, width)).astype(np.float32)
        mask = np.where(generator.random((batch, 1, 1, keys)) < 0.4, LOWEST, 0).astype(np.float32)
        mask[..., 0] = 0
        cases.append((q, k, v, mask if masked else None))
    calls = [(*(a for a in case if a is not None), np.zeros_like(case[0])) for case in cases]

    def kernel(isa):
        return attention(isa, heads, head_size, scale=head_size**-0.5, masked=masked)

    for (q, k, v, mask), y in zip(cases, run_everywhere(kernel, calls), strict=True):
        assert np.allclose(y, attention_reference(q, k, v, mask, heads), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("masked", "bias"), [(True, (False, True, True)), (False, (True, True, True)), (True, (False, False, True))]
)
def test_attention_with_a_bias_of_each_query(masked, bias, run_everywhere):
    generator = np.random.default_rng(5)
    heads, head_size = 3, 10
    cases = []
    for batch, queries, keys in ((1, 1, 1), (2, 5, 7), (3, 17, 33)):
        q = generator.standard_normal((batch, queries, heads * head_size)).astype(np.float32)
        k, v = generator.standard_normal((2, batch, keys, heads * head_size)).astype(np.float32)
        mask = np.where(generator.random((batch, 1, 1, keys)) < 0.4, LOWEST, 0).astype(np.float32)
        mask[..., 0] = 0
        shape = [size if own else 1 for own, size in zip(bias, (batch, heads, queries), strict=True)]
        added = generator.standard_normal((*shape, keys)).astype(np.float32)
        cases.append((q, k, v, mask if masked else None, added))
    calls = [(*(a for a in case if a is not None), np.zeros_like(case[0])) for case in cases]

    def kernel(isa):
        return attention(isa, heads, head_size, scale=head_size**-0.5, masked=masked, bias=bias)

    for (q, k, v, mask, added), y in zip(cases, run_everywhere(kernel, calls), strict=True):
        everything = added if mask is None else added + mask
        assert np.allclose(y, attention_reference(q, k, v, everything, heads), rtol=1e-5, atol=1e-5)


def test_a_row_without_any_token_gives_the_mean_of_the_values(run_everywhere):
    """As in transformers: all scores are equally low, and keys that only fill a vector up count for nothing."""
    q, k, v = np.random.default_rng(1).standard_normal((3, 1, 5, 12)).astype(np.float32)
    mask = np.full((1, 1, 1, 5), LOWEST, np.float32)

    def kernel(isa):
        return attention(isa, 1, 12, scale=0.3, masked=True)

    [y] = run_everywhere(kernel, [(q, k, v, mask, np.zeros_like(q))])
    assert np.allclose(y, np.repeat(v.mean(1, keepdims=True), 5, axis=1), rtol=1e-5, atol=1e-6)


def test_padded_keys_change_no_bit_of_the_result(compile_kernel, runnable):
    generator = np.random.default_rng(0)
    q, k, v = generator.standard_normal((3, 1, 9, 24)).astype(np.float32)
    run = compile_kernel(attention(isa_named(load_target(runnable[0]).isa), 2, 12, scale=0.3, masked=True))
    alone = run(q, k, v, np.zeros((1, 1, 1, 9), np.float32), np.zeros_like(q))
    for padding in (1, 7, 23):
        filler = generator.standard_normal((1, padding, 24)).astype(np.float32)
        padded = [np.concatenate([x, filler], axis=1) for x in (q, k, v)]
        mask = np.concatenate([np.zeros(9), np.full(padding, LOWEST)]).astype(np.float32).reshape(1, 1, 1, -1)
        assert np.array_equal(run(*padded, mask, np.zeros_like(padded[0]))[:, :9], alone)


@pytest.mark.parametrize(
    ("bits", "zero_point"), [(1, 0.5), (2, 1.0), (2, 1.5), (2, 2.0), (4, 8.0), (4, 3.0), (8, 128.0), (8, 41.0)]
)
def test_low_bit_embedding(bits, zero_point, run_everywhere):
    generator = np.random.default_rng(bits)
    for rows, columns in [(19, 37), *([(1, 1)] if bits == 8 else [])]:
        low, high = levels(bits, zero_point)
        codes = generator.integers(low, high + 1, (rows, columns)).astype(np.uint8)
        packed = pack(codes, bits)
        words = packed.view(np.int32).reshape(packed.shape[:3])
        for scales in {rows, 1 if bits == 2 else rows}:
            scale = generator.uniform(0.1, 1, scales).astype(np.float32)
            kernel = low_bit_embedding(PackedMatrix(rows, columns, bits, zero_point, scales), rank=2)
            ids = [generator.integers(0, rows, (2, n)) for n in (0, 1, 5)]
            found = run_everywhere(
                kernel, [(i, words, scale, np.zeros((*i.shape, columns), np.float32)) for i in ids]
            )
            for i, y in zip(ids, found, strict=True):
                row_scale = scale[i] if scales > 1 else np.broadcast_to(scale[0], i.shape)
                assert np.array_equal(y, (codes[i] - np.float32(zero_point)) * row_scale[..., None])


def test_ids_outside_a_table_stay_inside_its_memory(compile_kernel):
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    ids = np.array([[0, 3, -1, 2**62, 2]])
    y = compile_kernel(gather_rows(3, 4, rank=2))(table, ids, np.zeros((1, 5, 4), np.float32))
    assert np.array_equal(y[0], table[[0, 0, 0, 0, 2]])


@pytest.mark.parametrize(("heads", "head_size", "columns"), [(3, 5, 7), (2, 16, 50), (1, 9, 96)])
def test_heads_with_a_matrix_of_each(heads, head_size, columns, run_everywhere):
    generator = np.random.default_rng(columns)
    w = generator.standard_normal((1, heads, head_size, columns)).astype(np.float32)
    inputs = [generator.standard_normal((2, heads, rows, head_size)).astype(np.float32) for rows in (0, 1, 13)]
    calls = [(x, w, np.zeros((2, heads, x.shape[2], columns), np.float32)) for x in inputs]
    found = run_everywhere(lambda isa: head_matmul(isa, heads, head_size, columns), calls)
    for x, y in zip(inputs, found, strict=True):
        np.testing.assert_allclose(y, x.astype(np.float64) @ w.astype(np.float64), rtol=1e-5, atol=1e-5)
