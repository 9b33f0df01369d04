"""Products on 64-bit ARM: in 16 bits that never overflow without a dot product, and with matmuls of 2 x 8 bytes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns

CORES = ("cortex-a72", "neoverse-v1")
TOKENS = (0, 1, 2, 3, 4, 8, 13, 16, 71)
"""One, full tiles and every remainder, and so many that activations are spread out in parallel."""


def check(emulate_on, core, *, bits, zero_point, shape, tokens_of_calls=TOKENS, seven_bits=False):
    rows, columns = shape
    matrix = PackedMatrix(rows, columns, bits, zero_point, rows)
    function = low_bit_matmul(isa_named(load_target(core).isa), matrix, rank=1, has_bias=True, seven_bits=seven_bits)
    run = emulate_on(core, function)
    chance = np.random.default_rng(bits)
    low, high = (0, 127) if seven_bits else levels(bits, zero_point)
    for extreme in (False, True):  # the largest sums that may be added up in 16 bits
        codes = chance.integers(low, high + 1, (rows, columns)).astype(np.uint8)
        if extreme:
            codes[: rows // 2 + 1] = chance.choice([low, high], (rows // 2 + 1, 1))
        packed = pack(codes, bits)
        for tokens in tokens_of_calls:
            q = np.zeros((tokens, padded_columns(columns)), np.int8)
            q[:, :columns] = chance.choice([-127, 127], (tokens, 1)) if extreme else chance.integers(
                -127, 128, (tokens, columns)
            )
            arrays = [
                q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32),
                packed.view(np.int32).reshape(packed.shape[:3]), np.ones(rows, np.float32), np.zeros(rows, np.float32),
                np.full((tokens, rows), np.nan, np.float32),
            ]  # fmt: skip
            expected = q[:, :columns].astype(np.float64) @ (codes - zero_point).T
            np.testing.assert_array_equal(run(*arrays)[-1], expected)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("bits", "zero_point"), [(1, 0.5), (2, 1.5), (4, 3.0), (8, 128.0)])
def test_sums_are_exact(emulate_on, core, bits, zero_point):
    """Odd numbers of rows and of blocks of columns, and rows that are long enough to be widened in between."""
    check(emulate_on, core, bits=bits, zero_point=zero_point, shape=(37, 1100 if bits == 2 else 301))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("columns", [1, 9])
@pytest.mark.parametrize(("bits", "zero_point", "seven_bits"), [(2, 1.0, False), (8, 41.0, False), (8, 64.0, True)])
def test_few_columns(emulate_on, core, bits, zero_point, seven_bits, columns):
    check(
        emulate_on, core, bits=bits, zero_point=zero_point, shape=(5, columns), tokens_of_calls=(2, 8, 9),
        seven_bits=seven_bits,
    )  # fmt: skip


def test_7_bit_codes_are_added_up_twice_as_long(emulate_on):
    check(emulate_on, "cortex-a72", bits=8, zero_point=64.0, shape=(37, 301), seven_bits=True)
