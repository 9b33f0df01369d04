"""What a low-bit weight is: the numbers that every part of edgeq must read in the same way.

A weight matrix ``w`` of shape ``[N, K]`` is stored as unsigned codes and float scales::

    w[n, k] = scale[n] * (code[n, k] - zero_point)

with ``code`` in ``[0, 2**bits)``. This module describes such a matrix (:class:`PackedMatrix`), knows its sizes in bytes
before any byte exists, and is imported by everything else, so it needs only numpy. How the codes lie in memory is in
:mod:`edgeq.formats.packing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from edgeq.errors import FormatError
from edgeq.formats.packing import SUPPORTED_BITS, packed_shape

OP_DOMAIN = "ai.edgeq"
OP_VERSION = 1
FORMAT_VERSION = 1
"""Version of the compressed checkpoint and of the bundle."""

WEIGHT_ALIGNMENT = 64
"""Bytes; external data and ``weights.bin`` start every tensor at a multiple of this."""

Activation = Literal["none", "dynamic", "static"]
ACTIVATIONS: tuple[Activation, ...] = ("none", "dynamic", "static")

ACTIVATION_LEVELS = 127
"""Largest magnitude of a quantized activation: the grid is -127..127."""
ACTIVATION_MAX_FLOOR = 1e-30
"""A token whose largest magnitude is below this is quantized as if it were this (keeps 1/scale finite)."""
LARGEST_INT8_HEAD = 2**24 // ACTIVATION_LEVELS**2
"""Columns of a head whose int8 dot products float32 holds exactly."""

# Zero points of the grids: binary has two levels around 0, two-bit grids are ternary (codes 0, 1, 2), balanced
# (all four) or two's complement (-2..1), wider grids are symmetric with code 0 unused. A grid that follows the
# smallest and largest weight may put zero on any other code that is in use.
ZERO_POINTS: dict[int, tuple[float, ...]] = {1: (0.5,), 2: (1.0, 1.5, 2.0), 4: (8.0,), 8: (128.0,)}


def levels(bits: int, zero_point: float) -> tuple[int, int]:
    """Returns the smallest and largest code in use: ternary leaves 3 unused, symmetric grids leave 0.

    No 8-bit grid uses 0, because byte products of AVX2 are not exact for it. Grids of 7 bits are stored in 8, with the
    same codes.
    """
    if bits == 2 and zero_point == 1.0:
        return 0, 2
    if bits in (7, 8) or (bits == 4 and zero_point == 8.0):
        return 1, 2**bits - 1
    return 0, 2**bits - 1


def is_zero_point(bits: int, zero_point: float) -> bool:
    """Tells whether ``zero_point`` belongs to a grid, or is a code that may stand for zero."""
    lowest, highest = (1 if bits == 8 else 0), 2**bits - 1
    return zero_point in ZERO_POINTS[bits] or (
        bits > 1 and lowest <= zero_point <= highest and float(zero_point).is_integer()
    )


@dataclasses.dataclass(frozen=True)
class PackedMatrix:
    """Description of one packed weight matrix (no data).

    Attributes:
        rows: N, the number of output features (vocabulary size for an embedding).
        columns: K, the number of input features (width of an embedding).
        bits: Bits of one code: 1, 2, 4 or 8.
        zero_point: Code that stands for 0.0; half-integers are allowed.
        scales: ``N`` for one scale a row, 1 for one scale a matrix.
    """

    rows: int
    columns: int
    bits: int
    zero_point: float
    scales: int

    def __post_init__(self) -> None:
        if self.bits not in SUPPORTED_BITS:
            raise FormatError(f"bits must be one of {SUPPORTED_BITS}, found {self.bits}")
        if self.rows < 1 or self.columns < 1:
            raise FormatError(
                f"a packed matrix needs at least 1 x 1 entries, found {self.rows} x {self.columns}"
            )
        if not is_zero_point(self.bits, self.zero_point):
            raise FormatError(
                f"zero point of a {self.bits}-bit matrix must be one of its codes or of {ZERO_POINTS[self.bits]}, "
                f"found {self.zero_point}"
            )
        if self.scales not in (1, self.rows):
            raise FormatError(
                f"a matrix of {self.rows} rows has 1 or {self.rows} scales, found {self.scales}"
            )

    @property
    def fields(self) -> int:
        """Codes in one byte."""
        return 8 // self.bits

    @property
    def packed_shape(self) -> tuple[int, int, int, int]:
        """Shape of the uint8 tensor in layout ``n16k4``: ``[N/16, K/(4F), 16, 4]``, rounded up."""
        return packed_shape(self.rows, self.columns, self.bits)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed codes, padding included."""
        blocks, column_blocks, rows, group = self.packed_shape
        return blocks * column_blocks * rows * group

    @property
    def scale_bytes(self) -> int:
        """Bytes of the float32 scales."""
        return 4 * self.scales

    @property
    def code_bits(self) -> int:
        """Bits of the codes alone, without padding: what papers count."""
        return self.rows * self.columns * self.bits

    @property
    def padding_bytes(self) -> float:
        """Bytes that only fill up row tiles and column groups."""
        return self.packed_bytes - self.code_bits / 8


def packed_matrix_of(attributes: Mapping[str, Any], *, scales: int | None = None) -> PackedMatrix:
    """Describes the packed matrix that a node's attributes claim.

    Args:
        attributes: Must hold N, K, bits and zero_point.
        scales: Number of scales, where it matters; one a row by default.

    Raises:
        FormatError: If an attribute is missing or the combination is not a format edgeq has.
    """
    missing = [name for name in ("N", "K", "bits", "zero_point") if name not in attributes]
    if missing:
        raise FormatError(f"a low-bit node needs the attribute {missing[0]!r}, which is missing")
    rows = int(attributes["N"])
    return PackedMatrix(
        rows=rows,
        columns=int(attributes["K"]),
        bits=int(attributes["bits"]),
        zero_point=float(attributes["zero_point"]),
        scales=rows if scales is None else scales,
    )


def aligned(offset: int, alignment: int = WEIGHT_ALIGNMENT) -> int:
    """Returns the smallest multiple of ``alignment`` that is at least ``offset``."""
    return -(-offset // alignment) * alignment
