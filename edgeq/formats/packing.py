"""Layout ``n16k4``, whole: its sizes, and codes to bytes and back, in numpy.

Bytes are ``[N/16][K/(4F)][16 rows][4 bytes]`` with ``F = 8 / bits`` codes a byte. Field ``j`` (bits
``j*bits ..``) of byte ``b`` of row ``n`` in column block ``kb`` holds ``code[n, (kb*F + j)*4 + b]``::

    one 64-byte block, 2 bits:   row 0: b0 b1 b2 b3 | row 1: b0 b1 b2 b3 | ... | row 15: b0 b1 b2 b3
    byte b1 of row 0:            code k=1 in bits 0-1, k=5 in bits 2-3, k=9 in bits 4-5, k=13 in bits 6-7

One shift and one mask on 32-bit lanes therefore yield, for 16 rows at once, four neighbouring codes a
lane: the operand of a 4-way integer dot product. Padding (rows to 16, columns to 4F) holds code 0.
"""

from __future__ import annotations

import numpy as np

from edgeq.errors import FormatError

SUPPORTED_BITS = (1, 2, 4, 8)
ROW_TILE = 16
"""Rows of one block: a 512-bit register holds 16 lanes of 4 bytes."""
COLUMN_GROUP = 4
"""Columns that one 4-way integer dot product consumes."""

_BLOCKS_AT_ONCE = 256


def packed_shape(rows: int, columns: int, bits: int) -> tuple[int, int, int, int]:
    """Shape of the uint8 tensor that holds ``rows x columns`` codes."""
    columns_per_block = COLUMN_GROUP * (8 // bits)
    return -(-rows // ROW_TILE), -(-columns // columns_per_block), ROW_TILE, COLUMN_GROUP


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packs codes into layout ``n16k4``.

    Args:
        codes: Unsigned codes, shape ``[N, K]``, integer dtype, values in ``[0, 2**bits)``.
        bits: 1, 2, 4 or 8.

    Returns:
        uint8 array of shape ``[ceil(N/16), ceil(K/(4F)), 16, 4]``.

    Raises:
        FormatError: If the bit width is unknown, the array is not a matrix of integers, or a code does not fit.
    """
    if bits not in SUPPORTED_BITS:
        raise FormatError(f"bits must be one of {SUPPORTED_BITS}, found {bits}")
    if codes.ndim != 2 or codes.dtype.kind not in "iu":
        raise FormatError(f"codes must be a matrix of integers, found shape {codes.shape} of {codes.dtype}")
    if codes.size and (codes.min() < 0 or codes.max() >= 2**bits):
        raise FormatError(f"{bits}-bit codes lie in 0..{2**bits - 1}, found {codes.min()}..{codes.max()}")
    rows, columns = codes.shape
    row_blocks, column_blocks, _, _ = packed_shape(rows, columns, bits)
    fields = 8 // bits
    packed = np.empty((row_blocks, column_blocks, ROW_TILE, COLUMN_GROUP), np.uint8)
    # Some rows at a time: a table of 250,000 rows would be held four times.
    for start in range(0, row_blocks, _BLOCKS_AT_ONCE):
        part = codes[start * ROW_TILE : (start + _BLOCKS_AT_ONCE) * ROW_TILE]
        count = -(-len(part) // ROW_TILE)
        padded = np.zeros((count * ROW_TILE, column_blocks * fields * COLUMN_GROUP), np.uint8)
        padded[: len(part), :columns] = part
        blocks = padded.reshape(count, ROW_TILE, column_blocks, fields, COLUMN_GROUP)
        joined = np.zeros((count, ROW_TILE, column_blocks, COLUMN_GROUP), np.uint8)
        for field in range(fields):
            joined |= blocks[:, :, :, field, :] << np.uint8(field * bits)
        packed[start : start + count] = joined.transpose(0, 2, 1, 3)
    return packed


def unpack(packed: np.ndarray, bits: int, *, rows: int, columns: int) -> np.ndarray:
    """Recovers the codes from layout ``n16k4``; the exact inverse of :func:`pack`.

    Args:
        packed: uint8 array as :func:`pack` returns it.
        bits: 1, 2, 4 or 8.
        rows: N, the number of rows before padding.
        columns: K, the number of columns before padding.

    Returns:
        uint8 array of shape ``[rows, columns]``.

    Raises:
        FormatError: If the shape or dtype of ``packed`` is not that of an ``N x K`` matrix.
    """
    if bits not in SUPPORTED_BITS:
        raise FormatError(f"bits must be one of {SUPPORTED_BITS}, found {bits}")
    expected = packed_shape(rows, columns, bits)
    if packed.shape != expected or packed.dtype != np.uint8:
        raise FormatError(
            f"a {rows} x {columns} matrix of {bits}-bit codes is uint8 of shape {expected}, "
            f"found {packed.dtype} of shape {packed.shape}"
        )
    row_blocks = expected[0]
    fields = 8 // bits
    shifts = (np.arange(fields, dtype=np.uint8) * bits).reshape(1, 1, 1, fields, 1)
    by_row = packed.transpose(0, 2, 1, 3)[:, :, :, None, :]
    codes = (by_row >> shifts) & np.uint8(2**bits - 1)
    return np.ascontiguousarray(codes.reshape(row_blocks * ROW_TILE, -1)[:rows, :columns])
