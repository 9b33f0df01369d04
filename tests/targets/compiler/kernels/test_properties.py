"""Laws that hold for any input, on compiled kernels (compiled once, then given many inputs)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows

ROWS, COLUMNS = 21, 43
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.fixture(scope="module")
def quantize(compile_kernel):
    return compile_kernel(quantize_rows(COLUMNS, rank=1, static=False))


@MANY
@given(x=hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(COLUMNS)), elements=FINITE))
def test_quantized_rows_are_within_half_a_step_and_use_the_whole_range(quantize, x):
    words = np.zeros((len(x), padded_columns(COLUMNS) // 4), np.int32)
    words, scale, sums = quantize(x, words, np.zeros(len(x), np.float32), np.zeros(len(x), np.int32), outputs=3)
    codes = words.view(np.int8)[:, :COLUMNS].astype(np.int64)
    assert np.array_equal(codes.sum(1), sums)
    # Half a step, and the rounding of the step and its inverse, which is relative to the value.
    bound = scale[:, None].astype(np.float64) * 0.5 + np.abs(x) * 2.0**-21
    assert np.all(np.abs(codes * scale[:, None].astype(np.float64) - x) <= bound)
    assert np.all(np.abs(codes).max(1, initial=0)[np.abs(x).max(1, initial=0) > 1e-30] == 127)


@pytest.fixture(
    scope="module",
    params=[(1, 0.5, False), (2, 1.5, False), (4, 8.0, False), (8, 128.0, False), (8, 64.0, True)],
    ids=["1", "2", "4", "8", "7 in 8"],
)
def product(request, compile_kernel, runnable):
    bits, zero_point, seven_bits = request.param
    matrix = PackedMatrix(ROWS, COLUMNS, bits, zero_point, 1)
    runs = [
        compile_kernel(
            low_bit_matmul(
                isa_named(load_target(name).isa), matrix, rank=1, has_bias=False, seven_bits=seven_bits
            ),
            name,
        )
        for name in runnable
    ]
    return matrix, (1, 127) if seven_bits else levels(bits, zero_point), runs


@MANY
@given(data=st.data())
def test_integer_sums_are_exact_for_any_codes_and_activations(product, data):
    matrix, (low, high), runs = product
    codes = data.draw(hnp.arrays(np.uint8, (ROWS, COLUMNS), elements=st.integers(low, high), fill=st.just(high)))
    tokens = data.draw(st.integers(0, 11))
    q = np.zeros((tokens, padded_columns(COLUMNS)), np.int8)
    q[:, :COLUMNS] = data.draw(
        hnp.arrays(np.int8, (tokens, COLUMNS), elements=st.integers(-127, 127), fill=st.just(-127))
    )
    packed = pack(codes, matrix.bits)
    one, nothing = np.ones(1, np.float32), np.zeros(1, np.float32)
    for run in runs:
        y = run(
            q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
            packed.view(np.int32).reshape(packed.shape[:3]), one, nothing, np.zeros((tokens, ROWS), np.float32),
        )  # fmt: skip
        expected = q[:, :COLUMNS].astype(np.float64) @ (codes - matrix.zero_point).T
        assert np.array_equal(y, expected)
