"""Products that take activations by lane, run here with a dot product that is spelled out in shifts and products."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tvm.script import tirx as T

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns

ROWS, COLUMNS = 37, 53


def spelled_out(acc, codes, x, bits):
    """What ``sdot`` does: adds the products of four signed bytes to each lane."""
    del bits
    codes = T.reinterpret(codes, dtype="int32x4")
    for byte in range(4):
        left, right = (T.broadcast(T.int32(shift), 4) for shift in (24 - 8 * byte, 24))
        pair = [T.shift_right(T.shift_left(value, left), right) for value in (codes, x)]
        acc = acc + pair[0] * pair[1]
    return acc


@pytest.mark.parametrize(
    ("bits", "zero_point", "seven_bits"),
    [
        *(pytest.param(*one, False, marks=pytest.mark.slow) for one in [(1, 0.5), (2, 1.0), (4, 8.0)]),
        (8, 128.0, False),
        (8, 64.0, True),
    ],
)
def test_lane_products_are_exact(bits, zero_point, seven_bits, compile_kernel):
    isa = dataclasses.replace(isa_named("neon_dotprod"), dot4=spelled_out)
    run = compile_kernel(
        low_bit_matmul(
            isa, PackedMatrix(ROWS, COLUMNS, bits, zero_point, ROWS), rank=1, has_bias=True, seven_bits=seven_bits
        )
    )
    chance = np.random.default_rng(bits)
    low, high = (1, 127) if seven_bits else levels(bits, zero_point)
    codes = chance.integers(low, high + 1, (ROWS, COLUMNS)).astype(np.uint8)
    packed = pack(codes, bits)
    for tokens in (2, 3, 13):
        q = np.zeros((tokens, padded_columns(COLUMNS)), np.int8)
        q[:, :COLUMNS] = chance.integers(-127, 128, (tokens, COLUMNS))
        found = run(
            q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
            packed.view(np.int32).reshape(packed.shape[:3]), np.ones(ROWS, np.float32), np.zeros(ROWS, np.float32),
            np.full((tokens, ROWS), np.nan, np.float32),
        )  # fmt: skip
        assert np.array_equal(found, q[:, :COLUMNS].astype(np.float64) @ (codes - zero_point).T)
