"""Kernels for 32-bit ARM, each alone on an emulated Cortex-A7: the bits of this machine.

NEON of ARMv7 takes subnormal floats for zero, and gives zero where a result would be one. The last tests show where
that can be seen; whole models are compared in ``test_every_target_slow.py``.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.elementwise import elementwise
from edgeq.targets.compiler.kernels.float_matmul import float_matmul
from edgeq.targets.compiler.kernels.int8_attention import int8_attention
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.numerics import instructions_of
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.compiler.kernels.weight_only_matmul import weight_only_matmul

CORE = load_target("cortex-a7")
TINY = np.finfo(np.float32).tiny
"""The smallest float that is not subnormal."""


@pytest.fixture
def emulate(emulate_on):
    """Returns ``emulate(prim_func)`` to a function of arrays that runs on the emulated core; it returns all of them."""
    return functools.partial(emulate_on, CORE.name)


def test_int8_attention_has_the_bits_of_this_machine(emulate, compile_kernel, runnable):
    chance = np.random.default_rng(0)
    q = chance.standard_normal((2, 5, 36)).astype(np.float32)
    k, v = chance.standard_normal((2, 2, 19, 36)).astype(np.float32)
    mask = np.where(chance.random((2, 1, 1, 19)) < 0.3, np.float32(-1e38), np.float32(0))
    isa, here = isa_named(CORE.isa), isa_named(load_target(runnable[0]).isa)
    with instructions_of(isa):
        run = emulate(int8_attention(isa, 2, 18, scale=18**-0.5))
    wanted = compile_kernel(int8_attention(here, 2, 18, scale=18**-0.5))(q, k, v, mask, np.zeros_like(q))
    assert np.array_equal(run(q, k, v, mask, np.zeros_like(q))[-1], wanted)


def _bits(array):
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize(("bits", "zero_point"), [(1, 0.5), (2, 1.5), (4, 8.0), (8, 128.0)])
def test_integer_products_are_exact(emulate, bits, zero_point):
    rows, columns = 37, 331
    matrix = PackedMatrix(rows, columns, bits, zero_point, rows)
    run = emulate(low_bit_matmul(isa_named(CORE.isa), matrix, rank=1, has_bias=True))
    chance = np.random.default_rng(bits)
    low, high = levels(bits, zero_point)
    for extreme in (False, True):  # the largest sums that a step may add up in 16 bits
        codes = chance.integers(low, high + 1, (rows, columns)).astype(np.uint8)
        if extreme:
            codes[:20] = chance.choice([low, high], (20, 1))
        packed = pack(codes, bits)
        for tokens in (1, 2, 3, 5, 8):
            q = np.zeros((tokens, padded_columns(columns)), np.int8)
            q[:, :columns] = 127 if extreme else chance.integers(-127, 128, (tokens, columns))
            arrays = [
                q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
                packed.view(np.int32).reshape(packed.shape[:3]), np.ones(rows, np.float32), np.zeros(rows, np.float32),
                np.full((tokens, rows), np.nan, np.float32),
            ]  # fmt: skip
            expected = q[:, :columns].astype(np.float64) @ (codes - zero_point).T
            np.testing.assert_array_equal(run(*arrays)[-1], expected)


def test_float_products_give_the_same_bits(emulate, compile_kernel, runnable):
    """Both kernels: a dense matrix in panels of 16 outputs, and packed codes; full tiles of rows and what is left."""
    columns, rows, chance = 37, 35, np.random.default_rng(2)
    matrix = PackedMatrix(rows, columns, 4, 8.0, rows)
    words = pack(chance.integers(0, 16, (rows, columns)).astype(np.uint8), 4)
    words = words.view(np.int32).reshape(words.shape[:3])
    panels = chance.standard_normal((3, columns, 16)).astype(np.float32)
    scale, bias = (chance.standard_normal(rows).astype(np.float32) for _ in range(2))
    for operands, build in [
        ((panels, bias), lambda isa: float_matmul(isa, columns, rows, rank=1, has_bias=True)),
        ((words, scale, bias), lambda isa: weight_only_matmul(isa, matrix, rank=1, has_bias=True)),
    ]:
        there = emulate(build(isa_named(CORE.isa)))
        here = compile_kernel(build(isa_named(load_target(runnable[0]).isa)), runnable[0])
        for tokens in (1, 2, 3, 6, 9):
            x = chance.standard_normal((tokens, columns)).astype(np.float32)
            arrays = [x, *operands, np.zeros((tokens, rows), np.float32)]
            np.testing.assert_array_equal(_bits(there(*arrays)[-1]), _bits(here(*arrays)))


def test_rows_are_quantized_to_the_same_codes(emulate, compile_kernel):
    columns = 83
    with instructions_of(isa_named("neon_armv7")):
        there = emulate(quantize_rows(columns, rank=1, static=False))
    here = compile_kernel(quantize_rows(columns, rank=1, static=False))
    chance = np.random.default_rng(6)
    sizes = np.float32(10) ** chance.integers(-30, 30, (9, 1)).astype(np.float32)
    x = chance.standard_normal((9, columns)).astype(np.float32) * sizes
    x[1, :60] = np.arange(60) + 0.5  # ties
    x[1, 60] = 127.0
    x[2] = 0
    outputs = [np.zeros((9, padded_columns(columns) // 4), np.int32), np.zeros(9, np.float32), np.zeros(9, np.int32)]
    expected = here(x, *(output.copy() for output in outputs), outputs=3)
    for found, wanted in zip(there(x, *outputs)[1:], expected, strict=True):
        np.testing.assert_array_equal(_bits(found), _bits(wanted))


def _float_function(name):
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels import numerics

    function = getattr(numerics, name)

    @T.prim_func(s_tir=True)
    def kernel(x: T.Buffer((400, 16), "float32"), y: T.Buffer((400, 16), "float32")):
        with T.sblock("root"):
            for i in range(400):
                y[i, T.ramp(0, 1, 16)] = function(x[i, T.ramp(0, 1, 16)])

    return kernel


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "gelu", "gelu_tanh"])
def test_float_functions_give_the_same_bits(emulate, compile_kernel, name):
    with instructions_of(isa_named("neon_armv7")):
        there = emulate(_float_function(name))
    grid = np.linspace(-100 if name == "exp" else -15, 0 if name == "exp" else 15, 5600)
    small = np.logspace(-37, -3, 400)
    x = np.concatenate([grid, -small, small if name != "exp" else -small]).astype(np.float32).reshape(400, 16)
    here = compile_kernel(_float_function(name))(x, np.zeros_like(x))
    np.testing.assert_array_equal(_bits(there(x, np.zeros_like(x))[1]), _bits(here))


def _half_precision(source, to):
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def kernel(x: T.Buffer((4096, 16), source), y: T.Buffer((4096, 16), to)):
        with T.sblock("root"):
            for i in range(4096):
                y[i, T.ramp(0, 1, 16)] = T.cast(x[i, T.ramp(0, 1, 16)], f"{to}x16")

    return kernel


def test_caches_of_half_precision_hold_the_same_numbers(emulate):
    """All 65536 of them, subnormal ones included, and floats between them."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(4096, 16)
    numbers = ~np.isnan(halves)
    wide = emulate(_half_precision("float16", "float32"))(halves, np.zeros((4096, 16), np.float32))[1]
    np.testing.assert_array_equal(_bits(wide)[numbers], _bits(halves.astype(np.float32))[numbers])
    between = np.where(numbers, halves, np.float16(0)).astype(np.float32) * np.float32(1.0003)
    narrow = emulate(_half_precision("float32", "float16"))(between, np.zeros_like(halves))[1]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(_bits(narrow), _bits(between.astype(np.float16)))


def test_subnormal_numbers_are_zero_to_vectors_and_not_to_single_numbers(emulate, compile_kernel):
    """17 columns: sixteen in vectors of NEON, which give zero, and the last in the scalar unit, which does not."""
    x = np.full((2, 17), TINY / 4, np.float32)
    x[1] = TINY  # half of it is subnormal
    there = emulate(elementwise("Gelu", 17, rank=1))(x, np.zeros_like(x))[1]
    here = compile_kernel(elementwise("Gelu", 17, rank=1))(x, np.zeros_like(x))
    assert (here > 0).all()
    assert not there[:, :16].any()
    np.testing.assert_array_equal(there[:, 16], here[:, 16])


def test_numbers_that_are_not_subnormal_lose_at_most_the_smallest_of_them(emulate, compile_kernel):
    """So what a sum of an ordinary size is made of is the same: the loss is far below half of its last place."""
    x = np.concatenate([np.logspace(-37.9, -36, 136), -np.logspace(-37.9, -36, 136)]).astype(np.float32).reshape(16, 17)
    there = emulate(elementwise("Gelu", 17, rank=1))(x, np.zeros_like(x))[1]
    here = compile_kernel(elementwise("Gelu", 17, rank=1))(x, np.zeros_like(x))
    differs = _bits(there) != _bits(here)
    assert differs.any()
    assert np.abs(here[differs]).max() <= TINY
    np.testing.assert_array_equal(there[differs], 0)
