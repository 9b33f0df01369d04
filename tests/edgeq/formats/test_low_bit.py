import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import FormatError
from edgeq.formats.low_bit import ZERO_POINTS, PackedMatrix, aligned, levels
from edgeq.formats.packing import SUPPORTED_BITS, pack

SPECS = st.sampled_from([(bits, zero) for bits in SUPPORTED_BITS for zero in ZERO_POINTS[bits]])


@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 100), columns=st.integers(1, 100), spec=SPECS, per_row=st.booleans())
def test_sizes_are_known_before_any_byte_exists(
    rows: int, columns: int, spec: tuple[int, float], per_row: bool
) -> None:
    bits, zero_point = spec
    matrix = PackedMatrix(rows, columns, bits, zero_point, rows if per_row else 1)
    packed = pack(np.zeros((rows, columns), np.uint8), bits)
    assert matrix.packed_bytes == packed.nbytes
    assert matrix.packed_shape == packed.shape
    assert matrix.scale_bytes == 4 * (rows if per_row else 1)
    assert matrix.code_bits == rows * columns * bits
    assert matrix.padding_bytes >= 0
    assert matrix.code_bits + 8 * matrix.padding_bytes == 8 * packed.nbytes


def test_bert_base_sizes() -> None:
    # 768 x 3072 at 2 bits: a quarter of a byte a weight, nothing padded.
    assert PackedMatrix(768, 3072, 2, 1.0, 768).packed_bytes == 768 * 3072 // 4
    assert PackedMatrix(768, 3072, 2, 1.0, 768).padding_bytes == 0
    # 30522 rows are padded to 30528.
    assert PackedMatrix(30522, 768, 8, 128.0, 30522).padding_bytes == 6 * 768


@pytest.mark.parametrize(
    ("bits", "zero_point", "expected"),
    [(1, 0.5, (0, 1)), (2, 1.0, (0, 2)), (2, 1.5, (0, 3)), (4, 8.0, (1, 15)), (8, 128.0, (1, 255))],
)
def test_levels_are_symmetric_around_zero(bits: int, zero_point: float, expected: tuple[int, int]) -> None:
    assert levels(bits, zero_point) == expected
    assert zero_point - expected[0] == expected[1] - zero_point


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((4, 4, 3, 4.0, 1), "found 3"),
        ((0, 4, 8, 128.0, 1), "0 x 4"),
        ((4, -1, 8, 128.0, 1), "4 x -1"),
        ((4, 4, 8, 127.5, 1), "found 127.5"),
        ((4, 4, 8, 0.0, 1), "found 0.0"),
        ((4, 4, 4, 16.0, 1), "found 16.0"),
        ((4, 4, 1, 1.0, 1), "found 1.0"),
        ((4, 4, 8, float("nan"), 1), "found nan"),
        ((4, 4, 8, 128.0, 3), "found 3"),
    ],
)
def test_impossible_matrices_are_refused(arguments: tuple, found: str) -> None:
    with pytest.raises(FormatError, match=found):
        PackedMatrix(*arguments)


@pytest.mark.parametrize(("bits", "zero_point", "expected"), [(2, 2.0, (0, 3)), (4, 3.0, (0, 15)), (8, 1.0, (1, 255))])
def test_zero_may_be_any_code(bits: int, zero_point: float, expected: tuple[int, int]) -> None:
    assert PackedMatrix(4, 4, bits, zero_point, 1).zero_point == zero_point
    assert levels(bits, zero_point) == expected


@given(st.integers(0, 10**12))
def test_aligned_is_the_next_multiple_of_64(offset: int) -> None:
    result = aligned(offset)
    assert result % 64 == 0
    assert offset <= result < offset + 64
