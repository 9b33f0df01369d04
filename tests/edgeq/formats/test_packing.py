import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import FormatError
from edgeq.formats.packing import pack, packed_shape, unpack

BITS = st.sampled_from([1, 2, 4, 8])
SIZES = st.one_of(st.integers(1, 70), st.sampled_from([1, 2, 3, 13, 16, 17, 31, 32, 33, 97, 127, 131]))


def _codes(rows: int, columns: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, (rows, columns)).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(rows=SIZES, columns=SIZES, bits=BITS, seed=st.integers(0, 2**32 - 1))
def test_unpack_is_the_inverse_of_pack(rows: int, columns: int, bits: int, seed: int) -> None:
    codes = _codes(rows, columns, bits, seed)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.flags.c_contiguous
    assert packed.shape == packed_shape(rows, columns, bits)
    np.testing.assert_array_equal(unpack(packed, bits, rows=rows, columns=columns), codes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pack_is_the_inverse_of_unpack_where_nothing_is_padded(bits: int) -> None:
    rows, columns = 32, 3 * 4 * (8 // bits)
    packed = np.random.default_rng(bits).integers(0, 256, packed_shape(rows, columns, bits)).astype(np.uint8)
    np.testing.assert_array_equal(pack(unpack(packed, bits, rows=rows, columns=columns), bits), packed)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 80), bits=BITS, seed=st.integers(0, 99), data=st.data()
)
def test_every_code_is_where_the_layout_says(
    rows: int, columns: int, bits: int, seed: int, data: st.DataObject
) -> None:
    codes = _codes(rows, columns, bits, seed)
    packed = pack(codes, bits)
    n, k = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    fields = 8 // bits
    group, b = divmod(k, 4)
    block, j = divmod(group, fields)
    assert (int(packed[n // 16, block, n % 16, b]) >> (j * bits)) & (2**bits - 1) == codes[n, k]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 80), bits=BITS)
def test_padding_holds_code_zero(rows: int, columns: int, bits: int) -> None:
    packed = pack(np.full((rows, columns), 2**bits - 1, np.uint8), bits)
    row_blocks, column_blocks, tile, group = packed.shape
    padded_rows, padded_columns = row_blocks * tile, column_blocks * group * (8 // bits)
    everything = unpack(packed, bits, rows=padded_rows, columns=padded_columns)
    assert not everything[rows:].any()
    assert not everything[:, columns:].any()
    assert int(everything.sum(dtype=np.int64)) == rows * columns * (2**bits - 1)


def test_bytes_of_a_known_row() -> None:
    # Four 2-bit codes a byte: byte 0 holds k = 0, 4, 8, 12 from the lowest bits up.
    row = np.array([[1, 0, 0, 3, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 2]], np.uint8)
    packed = pack(row, 2)
    assert packed.shape == (1, 1, 16, 4)
    assert packed[0, 0, 0].tolist() == [1 | 2 << 2 | 3 << 4 | 1 << 6, 0, 0, 3 | 2 << 6]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16])
def test_any_integer_type_is_packed(dtype: type) -> None:
    codes = _codes(5, 7, 4, 0)
    np.testing.assert_array_equal(pack(codes.astype(dtype), 4), pack(codes, 4))


@pytest.mark.parametrize(
    ("codes", "bits", "found"),
    [
        (np.full((2, 2), 4), 2, "found 4..4"),
        (np.full((2, 2), -1), 8, "found -1..-1"),
        (np.zeros((2, 2)), 4, "float64"),
        (np.zeros(4, np.uint8), 4, r"shape \(4,\)"),
        (np.zeros((2, 2), np.uint8), 3, "found 3"),
        (np.zeros((2, 2), np.uint8), 0, "found 0"),
    ],
)
def test_what_cannot_be_packed_is_refused(codes: np.ndarray, bits: int, found: str) -> None:
    with pytest.raises(FormatError, match=found):
        pack(codes, bits)


@pytest.mark.parametrize(
    ("rows", "columns", "bits", "dtype"),
    [(17, 8, 4, np.uint8), (16, 9, 4, np.uint8), (16, 8, 2, np.int8), (16, 8, 5, np.uint8)],
)
def test_bytes_of_another_matrix_are_refused(rows: int, columns: int, bits: int, dtype: type) -> None:
    packed = np.zeros((1, 1, 16, 4), dtype)
    with pytest.raises(FormatError):
        unpack(packed, bits, rows=rows, columns=columns)
