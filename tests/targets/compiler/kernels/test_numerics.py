"""Shared float functions: stated errors over the float range, and the same bits on every instruction set."""

from __future__ import annotations

from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import special

from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.elementwise import elementwise, product, scaled
from edgeq.targets.compiler.kernels.numerics import EXP_UNDERFLOW
from edgeq.targets.runtime.machine import this_machine


def every_magnitude(limit: float) -> np.ndarray:
    """Floats of both signs over all exponents up to ``limit``, and a dense grid: 48 lanes a row."""
    exponents = np.logspace(-38, np.log10(limit), 24_000)
    grid = np.linspace(-limit, limit, 48_000)
    return np.concatenate([exponents, -exponents, grid]).astype(np.float32).reshape(-1, 48)


def units_in_last_place(found: np.ndarray, exact: np.ndarray) -> float:
    spacing = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32))
    return float(np.max(np.abs(found.astype(np.float64) - exact) / spacing))


@pytest.mark.parametrize(
    ("name", "reference", "limit", "bound"), [("Erf", special.erf, 12.0, 6), ("Tanh", np.tanh, 30.0, 5)]
)
def test_odd_functions_are_within_the_stated_error(name, reference, limit, bound, compile_kernel):
    x = every_magnitude(limit)
    y = compile_kernel(elementwise(name, 48, rank=1))(x, np.zeros_like(x))
    assert units_in_last_place(y, reference(x.astype(np.float64))) <= bound
    assert np.abs(y).max() <= 1


@pytest.mark.parametrize("name", ["Gelu", "GeluTanh"])
def test_gelu_is_close_to_its_definition(name, compile_kernel):
    x = every_magnitude(20.0)
    wide = x.astype(np.float64)
    inner = wide / np.sqrt(2) if name == "Gelu" else np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    sigmoid = special.erf(inner) if name == "Gelu" else np.tanh(inner)
    y = compile_kernel(elementwise(name, 48, rank=1))(x, np.zeros_like(x))
    # 1 + erf cancels for negative x, so the error is bounded absolutely, in units of the larger of |x| and 1.
    assert np.max(np.abs(y - wide / 2 * (1 + sigmoid)) / np.maximum(np.abs(wide), 1)) < 5e-7


@pytest.mark.parametrize("name", ["Sigmoid", "Silu"])
def test_sigmoid_and_what_it_gates_are_within_the_stated_error(name, compile_kernel):
    x = every_magnitude(120.0)
    exact = special.expit(x.astype(np.float64)) * (x.astype(np.float64) if name == "Silu" else 1)
    y = compile_kernel(elementwise(name, 48, rank=1))(x, np.zeros_like(x))
    inside = x >= EXP_UNDERFLOW
    assert units_in_last_place(y[inside], exact[inside]) <= 5
    assert not y[~inside].any()


@pytest.mark.parametrize("columns", [1, 16, 37])
def test_products_of_rows_are_rounded_once(columns, target, compile_kernel):
    a, b = np.random.default_rng(0).standard_normal((2, 5, columns)).astype(np.float32)
    assert np.array_equal(compile_kernel(product(columns, rank=1), target)(a, b, np.zeros_like(a)), a * b)
    factor = np.float32(1.7)
    assert np.array_equal(compile_kernel(scaled(1.7, columns, rank=1), target)(a, np.zeros_like(a)), a * factor)


def test_relu_is_exact(compile_kernel):
    x = every_magnitude(20.0)
    for columns in (48, 5):
        rows = x.reshape(-1)[: x.size // columns * columns].reshape(-1, columns)
        y = compile_kernel(elementwise("Relu", columns, rank=1))(rows, np.zeros_like(rows))
        assert np.array_equal(y, np.maximum(rows, 0))


def test_exp_is_within_two_units_and_vanishes_below_its_range(compile_kernel):
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels.numerics import exp

    @T.prim_func(s_tir=True)
    def kernel(x: T.Buffer((3000, 16), "float32"), y: T.Buffer((3000, 16), "float32")):
        with T.sblock("root"):
            for i in range(3000):
                y[i, T.ramp(0, 1, 16)] = exp(x[i, T.ramp(0, 1, 16)])

    x = np.linspace(-120, 0, 48_000, dtype=np.float32).reshape(3000, 16)
    y = compile_kernel(kernel)(x, np.zeros_like(x))
    inside = x >= EXP_UNDERFLOW
    assert units_in_last_place(y[inside], np.exp(x[inside].astype(np.float64))) <= 2
    assert not y[~inside].any()


@pytest.mark.parametrize("name", ["Gelu", "GeluTanh", "Sigmoid", "Silu"])
def test_vector_and_scalar_code_give_the_same_bits(name, target, compile_kernel):
    """A row of 48 runs in vectors, rows of 5 one value at a time; every instruction set returns the same."""
    x = every_magnitude(10.0)[:1000]
    expected = compile_kernel(elementwise(name, 48, rank=1))(x, np.zeros_like(x))
    narrow = x.reshape(-1)[: 48_000 // 5 * 5].reshape(-1, 5)
    scalar = compile_kernel(elementwise(name, 5, rank=1), target)(narrow, np.zeros_like(narrow))
    vector = compile_kernel(elementwise(name, 48, rank=1), target)(x, np.zeros_like(x))
    assert np.array_equal(vector, expected)
    assert np.array_equal(scalar.reshape(-1), expected.reshape(-1)[: scalar.size])


def test_rounding_without_an_instruction_gives_the_same_bits(compile_kernel):
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels.numerics import instructions_of, round_half_even

    def build(lanes):
        @T.prim_func(s_tir=True)
        def kernel(x: T.Buffer((3000, 16), "float32"), y: T.Buffer((3000, 16), "float32")):
            with T.sblock("root"):
                for i in range(3000):
                    if lanes == 16:
                        y[i, T.ramp(0, 1, 16)] = round_half_even(x[i, T.ramp(0, 1, 16)])
                    else:
                        for j in range(16):
                            y[i, j] = round_half_even(x[i, j])

        return kernel

    chance = np.random.default_rng(4)
    x = chance.integers(0, 2**32, (3000, 16), dtype=np.uint32).view(np.float32)
    x[:1000] = chance.integers(-600, 600, (1000, 16)) / 4  # ties and zeros of both signs
    x[1000, :8] = [0.5, -0.5, 2**22 + 0.5, 2**23 - 0.5, 2**23, -(2**23), 2**24 + 2, 1e30]
    x[1001, :5] = [0.0, -0.0, np.inf, -np.inf, -0.3]
    for lanes in (16, 1):
        with instructions_of(isa_named("neon_armv7")):
            spelled_out = build(lanes)
        assert "nearbyint" not in str(spelled_out.script())
        y = compile_kernel(spelled_out)(x, np.zeros_like(x))
        numbers = ~np.isnan(x)
        np.testing.assert_array_equal(y[numbers].view(np.int32), np.rint(x[numbers]).view(np.int32))
        assert np.isnan(y[~numbers]).all()


SSE41 = "x86-64-v2"
SPECIAL = [0, 1 << 31, 1, 1 << 31 | 1, 0x7FFFFF, 0x800000, 0x3F800000, 0xBF800000, 0x3F800001, 0x7F7FFFFF, 0x7F800000]
"""Bits of zeros, of the smallest and largest subnormal and normal floats, of ones and of infinity."""


def _fused(lanes, rows):
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels.numerics import fma

    every = (rows, 16)

    @T.prim_func(s_tir=True)
    def kernel(
        a: T.Buffer(every, "float32"), b: T.Buffer(every, "float32"), c: T.Buffer(every, "float32"),
        y: T.Buffer(every, "float32"),
    ):  # fmt: skip
        with T.sblock("root"):
            for i in range(rows):
                if lanes == 16:
                    y[i, T.ramp(0, 1, 16)] = fma(
                        a[i, T.ramp(0, 1, 16)], b[i, T.ramp(0, 1, 16)], c[i, T.ramp(0, 1, 16)]
                    )
                else:
                    for j in range(16):
                        y[i, j] = fma(a[i, j], b[i, j], c[i, j])

    return kernel


@pytest.fixture(scope="module")
def fuse(compile_kernel):
    """Returns ``fuse(lanes, rows)`` to a function of arrays [rows, 16] that does without the instruction."""
    from edgeq.targets.compiler.kernels.numerics import instructions_of

    if not load_target(SSE41).runs_on(this_machine()):
        pytest.skip("needs an x86-64 processor; x86-64-v2 runs under an emulator in test_every_target_slow.py")

    def build(lanes, rows):
        with instructions_of(isa_named("sse41")):
            spelled_out = _fused(lanes, rows)
        assert "fma" not in str(spelled_out.script())
        run = compile_kernel(spelled_out, SSE41)
        return lambda a, b, c: run(a, b, c, np.zeros_like(a))

    return build


def _nearest_float32(value):
    """The float32 nearest to a fraction, ties to even."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length(), -125)
    exponent -= size < Fraction(2) ** exponent  # now 2**exponent <= size < 2**(exponent + 1), or it is subnormal
    place = Fraction(2) ** (max(exponent, -126) - 23)
    rounded = round(size / place) * place
    rounded = float(rounded) if rounded < 2**128 else np.inf
    return rounded if value > 0 else -rounded


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    bits=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from(SPECIAL)), min_size=48, max_size=48),
    shift=st.integers(-60, 60),
    ties=st.booleans(),
)
def test_multiply_and_add_without_the_instruction_rounds_once(fuse_one, bits, shift, ties):
    a, b, c = np.array(bits, np.uint32).view(np.float32).reshape(3, 1, 16)
    if ties:  # products of 48 bits next to the middle between two floats, and something far smaller
        a, b = 1 + np.abs(np.modf(a)[0] // 2**-12 * 2**-12), 1 + np.float32(2.0) ** -(np.abs(shift) % 23 + 1)
        a, b = np.nan_to_num(a, nan=1.0).astype(np.float32), np.broadcast_to(np.float32(b), a.shape).copy()
        c = np.full_like(a, np.copysign(2.0 ** (-abs(shift) - 24), shift))
    found = [function(a, b, c)[0] for function in fuse_one]
    for lane in range(16):
        x, y, z = (float(array[0, lane]) for array in (a, b, c))
        if not all(map(np.isfinite, (x, y, z))):
            with np.errstate(all="ignore"):
                expected = np.float64(x) * np.float64(y) + np.float64(z)
        else:
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            expected = _nearest_float32(exact) if exact else x * y + z  # zeros keep their signs
        for one in found:
            np.testing.assert_array_equal(one[lane], np.float32(expected))
            assert np.isnan(expected) or np.signbit(one[lane]) == np.signbit(expected)


@pytest.fixture(scope="module")
def fuse_one(fuse):
    return fuse(16, 1), fuse(1, 1)


def test_multiply_and_add_gives_the_bits_of_the_instruction(fuse, compile_kernel, runnable):
    rows = 4000
    there, here = fuse(16, rows), compile_kernel(_fused(16, rows), runnable[0])
    chance = np.random.default_rng(3)
    sizes = [2.0 ** chance.integers(-75, -60, (rows, 16)), 2.0 ** chance.integers(-30, 30, (rows, 16))]
    anything = [chance.integers(0, 2**32, (rows, 16), dtype=np.uint32).view(np.float32) for _ in range(3)]
    numbers = [chance.standard_normal((rows, 16)).astype(np.float32) for _ in range(3)]
    subnormal = [(n * size).astype(np.float32) for n, size in zip(numbers, [sizes[0]] * 2 + [2.0**-149], strict=True)]
    whole = [(chance.integers(-4096, 4096, (rows, 16)) * sizes[1]).astype(np.float32) for _ in range(3)]
    for arrays in (anything, numbers, subnormal, whole):
        expected = here(*arrays, np.zeros_like(arrays[0]))
        found, is_nan = there(*arrays), np.isnan(expected)
        np.testing.assert_array_equal(found[~is_nan].view(np.int32), expected[~is_nan].view(np.int32))
        assert np.isnan(found[is_nan]).all()


def test_a_constant_is_the_float_that_it_is_everywhere(fuse, compile_kernel, runnable):
    """0.1 as float64 is another number than 0.1 as float32."""
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels.numerics import fma, instructions_of, splat

    def build():
        @T.prim_func(s_tir=True)
        def kernel(x: T.Buffer((100, 16), "float32"), y: T.Buffer((100, 16), "float32")):
            with T.sblock("root"):
                for i in range(100):
                    y[i, T.ramp(0, 1, 16)] = fma(
                        x[i, T.ramp(0, 1, 16)], splat(0.1, x[i, T.ramp(0, 1, 16)]), splat(0.3, x[i, T.ramp(0, 1, 16)])
                    )

        return kernel

    with instructions_of(isa_named("sse41")):
        there = compile_kernel(build(), SSE41)
    x = np.random.default_rng(1).standard_normal((100, 16)).astype(np.float32)
    here = compile_kernel(build(), runnable[0])
    np.testing.assert_array_equal(there(x, np.zeros_like(x)), here(x, np.zeros_like(x)))


@pytest.mark.parametrize("lanes", [16, 1])
def test_halves_without_an_instruction_are_the_same_numbers(compile_kernel, lanes):
    from tvm.script import tirx as T

    from edgeq.targets.compiler.kernels.numerics import converted, instructions_of

    def build(source, to, rows):
        @T.prim_func(s_tir=True)
        def kernel(x: T.Buffer((rows, 16), source), y: T.Buffer((rows, 16), to)):
            with T.sblock("root"):
                for i in range(rows):
                    if lanes == 16:
                        y[i, T.ramp(0, 1, 16)] = converted(x[i, T.ramp(0, 1, 16)], to)
                    else:
                        for j in range(16):
                            y[i, j] = converted(x[i, j], to)

        return kernel

    with instructions_of(isa_named("portable")):
        widen, narrow = build("float16", "float32", 4096), build("float32", "float16", 20000)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(4096, 16)
    wide = compile_kernel(widen)(halves, np.zeros((4096, 16), np.float32))
    numbers = ~np.isnan(halves)
    np.testing.assert_array_equal(wide[numbers].view(np.int32), halves[numbers].astype(np.float32).view(np.int32))
    assert np.isnan(wide[~numbers]).all()
    chance = np.random.default_rng(8)
    x = chance.integers(0, 2**32, (20000, 16), dtype=np.uint32).view(np.float32)
    x[:8000] = (chance.standard_normal((8000, 16)) * 2.0 ** chance.integers(-27, 17, (8000, 16))).astype(np.float32)
    middles = (np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)[: 16 * 1900]).reshape(-1, 16)
    x[8000 : 8000 + len(middles)] = middles + np.spacing(middles.astype(np.float16)).astype(np.float32) / 2
    x[-1, :6] = [65519.996, 65520.0, -65520.0, np.inf, -np.inf, -0.0]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(np.float16)
    found, numbers = compile_kernel(narrow)(x, np.zeros(x.shape, np.float16)), ~np.isnan(x)
    np.testing.assert_array_equal(found[numbers].view(np.int16), expected[numbers].view(np.int16))
    assert np.isnan(found[~numbers]).all()
