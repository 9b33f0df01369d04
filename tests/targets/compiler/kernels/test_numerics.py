"""Shared float functions: stated errors over the float range, and the same bits on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from edgeq.targets.compiler.kernels.elementwise import elementwise, product, scaled
from edgeq.targets.compiler.kernels.numerics import EXP_UNDERFLOW


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

    from edgeq.targets.compiler.kernels.numerics import round_half_even, without_rounding_instruction

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
        with without_rounding_instruction():
            spelled_out = build(lanes)
        assert "nearbyint" not in str(spelled_out.script())
        y = compile_kernel(spelled_out)(x, np.zeros_like(x))
        numbers = ~np.isnan(x)
        np.testing.assert_array_equal(y[numbers].view(np.int32), np.rint(x[numbers]).view(np.int32))
        assert np.isnan(y[~numbers]).all()
