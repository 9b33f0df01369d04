"""Products against numpy: packed codes with int8 and with float activations, and dense float32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special

from edgeq.errors import UnsupportedError
from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.float_matmul import float_matmul, panels
from edgeq.targets.compiler.kernels.low_bit_matmul import check_accumulator, low_bit_matmul
from edgeq.targets.compiler.kernels.matmul_settings import MOST_PAIRED, PAIR_TOKENS, MatmulSettings
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns
from edgeq.targets.compiler.kernels.residual_matmul import residual_matmul
from edgeq.targets.compiler.kernels.weight_only_matmul import weight_only_matmul
from edgeq.targets.runtime.machine import this_machine

FORMATS = [(1, 0.5), (2, 1.5), (4, 8.0), (8, 128.0)]
OTHER_ZERO_POINTS = [(2, 1.0), (2, 2.0), (4, 3.0), (8, 41.0)]
ODD_SHAPE = (37, 53)
SMALL_SHAPES = [(1, 1), (32, 31)]


SEVEN = (8, 64.0)
"""Bits and zero point of a matrix whose codes are all below 128."""


def random_matrix(
    rows: int, columns: int, bits: int, zero_point: float, scales: int | None = None, *, seven_bits: bool = False
):
    generator = np.random.default_rng(rows * columns + bits)
    low, high = (1, 127) if seven_bits else levels(bits, zero_point)
    codes = generator.integers(low, high + 1, (rows, columns)).astype(np.uint8)
    matrix = PackedMatrix(rows, columns, bits, zero_point, scales or rows)
    packed = pack(codes, bits)
    scale = generator.uniform(0.01, 1, matrix.scales).astype(np.float32)
    return matrix, codes, packed.view(np.int32).reshape(packed.shape[:3]), scale


def isa_of(target: str):
    return isa_named(load_target(target).isa)


def assert_equal_but_for_one_rounding(found: np.ndarray, exact: np.ndarray) -> None:
    """The reference rounds twice (to float64, then float32), which may move the last bit in one case of 2**29."""
    assert np.all(np.abs(found - exact) <= np.spacing(np.abs(exact).astype(np.float32)))


@pytest.mark.parametrize(("bits", "zero_point"), FORMATS)
def test_integer_product_matches_numpy(bits, zero_point, product_target, compile_kernel):
    shapes = [ODD_SHAPE, *(SMALL_SHAPES if bits == 2 else [])]
    check_integer_product(bits, zero_point, product_target, compile_kernel, shapes=shapes)


def test_many_tokens_with_8_bit_codes(product_target, compile_kernel):
    """Full tiles and every remainder, even and odd numbers of words, many threads' activations, an own zero point."""
    shapes, tokens = [ODD_SHAPE, (ODD_SHAPE[0], 49)], (4, 5, 6, 10, 63, 64, 79)
    check_integer_product(8, 41.0, product_target, compile_kernel, shapes=shapes, tokens_of_calls=tokens)


def test_integer_product_of_7_bit_codes_matches_numpy(product_target, compile_kernel):
    """Odd sizes, full tiles and every remainder, one row and one column."""
    check_integer_product(
        *SEVEN, product_target, compile_kernel, shapes=[ODD_SHAPE, (1, 1)], seven_bits=True,
        tokens_of_calls=(0, 1, 2, 3, 4, 5, 7, 8, 13, 64, 79),
    )  # fmt: skip


def test_both_kernels_give_the_same_bits_for_7_bit_codes(compile_kernel, runnable):
    """Those of a matrix that may have larger codes, for every target, with and without an addition."""
    matrix, _, words, scale = random_matrix(*ODD_SHAPE, *SEVEN, seven_bits=True)
    generator = np.random.default_rng(5)
    q = np.zeros((9, padded_columns(matrix.columns)), np.int8)
    q[:, : matrix.columns] = generator.integers(-127, 128, (9, matrix.columns))
    a_scale = generator.uniform(0.001, 1, 9).astype(np.float32)
    bias, added = (generator.standard_normal(n).astype(np.float32) for n in (matrix.rows, (9, matrix.rows)))
    operands = [q.view(np.int32), a_scale, q.sum(1, dtype=np.int32), words, scale, bias]
    for build, more in ((low_bit_matmul, []), (residual_matmul, [added])):
        found = [
            compile_kernel(
                build(isa_of(name), matrix, rank=1, has_bias=True, epilogue="gelu", seven_bits=seven_bits), name
            )(*operands, *more, np.full_like(added, np.nan))
            for name in runnable
            for seven_bits in (False, True)
        ]
        assert np.isfinite(found[0]).all()
        assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("bits", "zero_point"), FORMATS[:3])
def test_one_token_with_rows_of_many_words(bits, zero_point, product_target, compile_kernel):
    """Where there is no dot product, its sums are widened after some words, and after the last ones."""
    check_integer_product(
        bits, zero_point, product_target, compile_kernel, shapes=[(ODD_SHAPE[0], 301)], tokens_of_calls=(1,)
    )


@pytest.mark.parametrize(("bits", "zero_point"), FORMATS)
def test_tokens_in_tiles(bits, zero_point, compile_kernel):
    """Few of them, full tiles, pairs of tiles and all that is left; columns that fill tiles and that do not."""
    if not load_target("x86-64-amx").runs_on(this_machine()):
        pytest.skip("this processor lacks amx_int8")
    check_integer_product(
        bits, zero_point, "x86-64-amx", compile_kernel, shapes=[ODD_SHAPE, (64, 128), (16, 320)],
        tokens_of_calls=(8, 9, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 160),
    )  # fmt: skip


@pytest.mark.parametrize(("bits", "zero_point"), OTHER_ZERO_POINTS)
def test_integer_product_with_other_zero_points(bits, zero_point, runnable, compile_kernel):
    """Whole and uneven ones, with codes that are turned into signed bytes; the usual ones run on every target."""
    check_integer_product(bits, zero_point, runnable[-1], compile_kernel, shapes=[ODD_SHAPE])


def check_integer_product(
    bits, zero_point, target, compile_kernel, *, shapes, tokens_of_calls=(0, 1, 2, 3, 7, 8, 13, 15), seven_bits=False
):
    for rows, columns in shapes:
        matrix, codes, words, scale = random_matrix(rows, columns, bits, zero_point, seven_bits=seven_bits)
        product = low_bit_matmul(isa_of(target), matrix, rank=1, has_bias=True, seven_bits=seven_bits)
        run = compile_kernel(product, target)
        generator = np.random.default_rng(7)
        for tokens in tokens_of_calls:
            q = np.zeros((tokens, padded_columns(columns)), np.int8)
            q[:, :columns] = generator.integers(-127, 128, (tokens, columns))
            a_scale = generator.uniform(0.001, 1, tokens).astype(np.float32)
            bias = generator.standard_normal(rows).astype(np.float32)
            y = run(
                q.view(np.int32), a_scale, q.sum(1, dtype=np.int32), words, scale, bias,
                np.full((tokens, rows), np.nan, np.float32),
            )  # fmt: skip
            exact_sum = (q[:, :columns].astype(np.float64) @ (codes - zero_point).T).astype(np.float32)
            factor = (a_scale[:, None] * scale).astype(np.float64)
            assert_equal_but_for_one_rounding(y, exact_sum * factor + bias)


def test_an_addition_in_the_product_is_the_addition_behind_it(compile_kernel, runnable):
    target = runnable[-1]
    matrix, _, words, scale = random_matrix(*ODD_SHAPE, 2, 1.0)
    options = {"rank": 1, "has_bias": True, "epilogue": "gelu"}
    plain = compile_kernel(low_bit_matmul(isa_of(target), matrix, **options), target)
    adding = compile_kernel(residual_matmul(isa_of(target), matrix, **options), target)
    generator = np.random.default_rng(3)
    for tokens in (0, 1, 3, 9):
        q = np.zeros((tokens, padded_columns(matrix.columns)), np.int8)
        q[:, : matrix.columns] = generator.integers(-127, 128, (tokens, matrix.columns))
        bias, added = (generator.standard_normal(n).astype(np.float32) for n in (matrix.rows, (tokens, matrix.rows)))
        operands = [q.view(np.int32), np.full(tokens, 0.01, np.float32), q.sum(1, dtype=np.int32), words, scale, bias]
        expected = plain(*operands, np.full_like(added, np.nan)) + added
        assert np.array_equal(adding(*operands, added, np.full_like(added, np.nan)), expected)


@pytest.mark.parametrize("target_pair_bits", [1, 2, 4, 8])
def test_extreme_codes_neither_saturate_nor_overflow(target_pair_bits, product_target, compile_kernel):
    """Largest codes against largest activations: what `pmaddubsw` would saturate, and sums in 16 bits overflow."""
    bits, zero_point = target_pair_bits, {1: 0.5, 2: 1.5, 4: 8.0, 8: 128.0}[target_pair_bits]
    matrix = PackedMatrix(16, 512, bits, zero_point, 1)
    run = compile_kernel(
        low_bit_matmul(isa_named(load_target(product_target).isa), matrix, rank=1, has_bias=False), product_target
    )
    for code in levels(bits, zero_point):
        packed = pack(np.full((16, 512), code, np.uint8), bits)
        for activation in (-127, 127):
            for tokens in (1, 7, 9):
                q = np.full((tokens, 512), activation, np.int8)
                y = run(
                    q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
                    packed.view(np.int32).reshape(packed.shape[:3]), np.ones(1, np.float32), np.zeros(1, np.float32),
                    np.zeros((tokens, 16), np.float32),
                )  # fmt: skip
                assert np.all(y == np.float32((code - zero_point) * activation * 512))


def test_extreme_7_bit_codes_do_not_saturate(product_target, compile_kernel):
    """The largest pair sums are 127 * 127 * 2, and 127 * -128 * 2 with a byte that no quantizer makes."""
    matrix = PackedMatrix(16, 512, *SEVEN, 1)
    run = compile_kernel(
        low_bit_matmul(isa_of(product_target), matrix, rank=1, has_bias=False, seven_bits=True), product_target
    )
    for code, activation, tokens in itertools.product((1, 127), (-128, -127, 127), (1, 7)):
        packed = pack(np.full((16, 512), code, np.uint8), 8)
        q = np.full((tokens, 512), activation, np.int8)
        y = run(
            q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
            packed.view(np.int32).reshape(packed.shape[:3]), np.ones(1, np.float32), np.zeros(1, np.float32),
            np.zeros((tokens, 16), np.float32),
        )  # fmt: skip
        assert np.all(y == np.float32((code - 64) * activation * 512))


def test_a_code_above_7_bits_gives_a_wrong_sum_and_nothing_else(compile_kernel, runnable):
    """A kernel for 7 bits reads the same addresses whatever the codes: one wrong code changes its own row alone."""
    matrix, codes, words, scale = random_matrix(*ODD_SHAPE, *SEVEN, seven_bits=True)
    wrong = codes.copy()
    wrong[5] = 255
    q = np.zeros((5, padded_columns(matrix.columns)), np.int8)
    q[:, : matrix.columns] = 127
    for name in runnable:
        run = compile_kernel(low_bit_matmul(isa_of(name), matrix, rank=1, has_bias=False, seven_bits=True), name)
        found = [
            run(
                q.view(np.int32), np.ones(5, np.float32), q.sum(1, dtype=np.int32), packed, scale,
                np.zeros(1, np.float32), np.full((5, matrix.rows), np.nan, np.float32),
            )
            for packed in (words, pack(wrong, 8).view(np.int32).reshape(words.shape))
        ]  # fmt: skip
        assert np.isfinite(found[1]).all()
        assert np.array_equal(np.delete(found[0], 5, axis=1), np.delete(found[1], 5, axis=1))


def test_as_many_columns_as_may_be_paired_do_not_overflow(compile_kernel, runnable):
    """Every sum on the way is as large as it can be, and one column more is added up in another way."""
    if "x86-64-v3" not in runnable:
        pytest.skip("needs a processor with AVX2")
    isa, columns, tokens = isa_of("x86-64-v3"), MOST_PAIRED, PAIR_TOKENS + 1
    settings = [MatmulSettings(isa, PackedMatrix(16, n, 8, 128.0, 1), False, "none") for n in (columns, columns + 1)]
    assert [one.pairs for one in settings] == [True, False]
    for n in (columns, columns + 1):
        run = compile_kernel(low_bit_matmul(isa, PackedMatrix(16, n, 8, 128.0, 1), rank=1, has_bias=False), "x86-64-v3")
        for code, activation in ((255, 127), (255, -127), (1, 127), (1, -127)):
            packed = pack(np.full((16, n), code, np.uint8), 8)
            q = np.zeros((tokens, padded_columns(n)), np.int8)
            q[:, :n] = activation
            y = run(
                q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
                packed.view(np.int32).reshape(packed.shape[:3]), np.ones(1, np.float32), np.zeros(1, np.float32),
                np.zeros((tokens, 16), np.float32),
            )  # fmt: skip
            assert np.all(y == np.float32((code - 128) * activation * n))


@pytest.mark.parametrize("epilogue", ["gelu", "gelu_tanh", "relu", "silu", "tanh"])
def test_epilogue_is_the_activation_of_the_result(epilogue, target, compile_kernel):
    matrix, codes, words, scale = random_matrix(37, 53, 4, 8.0, scales=1)
    run = compile_kernel(
        low_bit_matmul(isa_named(load_target(target).isa), matrix, rank=1, has_bias=False, epilogue=epilogue),
        target,
    )
    q = np.zeros((5, 64), np.int8)
    q[:, :53] = np.random.default_rng(0).integers(-127, 128, (5, 53))
    a_scale = np.full(5, 0.002, np.float32)
    y = run(
        q.view(np.int32), a_scale, q.sum(1, dtype=np.int32), words, scale, np.zeros(1, np.float32),
        np.zeros((5, 37), np.float32),
    )  # fmt: skip
    x = (q[:, :53].astype(np.float64) @ (codes - 8.0).T) * (a_scale[:, None] * scale)
    exact = {
        "gelu": x / 2 * (1 + special.erf(x / np.sqrt(2))),
        "gelu_tanh": x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "relu": np.maximum(x, 0),
        "silu": x * special.expit(x),
        "tanh": np.tanh(x),
    }
    assert np.allclose(y, exact[epilogue], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("bits", "zero_point"), FORMATS)
def test_weight_only_product_matches_numpy_and_is_the_same_everywhere(bits, zero_point, compile_kernel, runnable):
    for rows, columns in [ODD_SHAPE, *(SMALL_SHAPES if bits == 4 else [])]:
        matrix, codes, words, scale = random_matrix(rows, columns, bits, zero_point)
        runs = [
            compile_kernel(weight_only_matmul(isa_of(name), matrix, rank=1, has_bias=True), name) for name in runnable
        ]
        generator = np.random.default_rng(3)
        bias = generator.standard_normal(rows).astype(np.float32)
        for tokens in (0, 1, 5, 8, 15):
            x = generator.standard_normal((tokens, columns)).astype(np.float32)
            results = [run(x, words, scale, bias, np.zeros((tokens, rows), np.float32)) for run in runs]
            assert all(np.array_equal(results[0], other) for other in results[1:])
            exact = x.astype(np.float64) @ (codes - zero_point).T * scale + bias
            magnitude = np.abs(x).astype(np.float64) @ np.abs(codes - zero_point).T * scale + np.abs(bias)
            assert np.all(np.abs(results[0] - exact) <= (columns + 2) * 2.0**-24 * magnitude)


@pytest.mark.parametrize("has_bias", [True, False])
def test_float_product_matches_numpy_and_is_the_same_everywhere(has_bias, compile_kernel, runnable):
    for outputs, inputs in [ODD_SHAPE, *(SMALL_SHAPES if has_bias else [])]:
        runs = [
            compile_kernel(float_matmul(isa_of(name), inputs, outputs, rank=1, has_bias=has_bias), name)
            for name in runnable
        ]
        generator = np.random.default_rng(3)
        w = generator.standard_normal((inputs, outputs)).astype(np.float32)
        bias = generator.standard_normal(outputs).astype(np.float32) if has_bias else np.zeros(1, np.float32)
        for tokens in (0, 1, 5, 8, 15):
            x = generator.standard_normal((tokens, inputs)).astype(np.float32)
            results = [run(x, panels(w), bias, np.zeros((tokens, outputs), np.float32)) for run in runs]
            assert all(np.array_equal(results[0], other) for other in results[1:])
            exact = x.astype(np.float64) @ w + bias
            magnitude = np.abs(x).astype(np.float64) @ np.abs(w) + np.abs(bias)
            assert np.all(np.abs(results[0] - exact) <= (inputs + 2) * 2.0**-24 * magnitude)


def test_a_matrix_whose_sums_could_overflow_is_refused():
    with pytest.raises(UnsupportedError, match="head: 40000 columns of 8-bit codes can overflow"):
        check_accumulator(PackedMatrix(16, 40_000, 8, 128.0, 1), "head")
    check_accumulator(PackedMatrix(16, 40_000, 4, 8.0, 1), "head")
