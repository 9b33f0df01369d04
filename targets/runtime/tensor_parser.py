"""Tensors in a manifest: inputs, outputs, caches, and what lies in ``weights.bin`` and ``golden.bin``."""

from __future__ import annotations

import math

from edgeq.errors import FormatError
from edgeq.formats.low_bit import WEIGHT_ALIGNMENT, is_zero_point
from edgeq.formats.packing import SUPPORTED_BITS
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.schema import ITEM_BYTES, PlacedTensor, PlacedWeight, TensorSpec

MAX_TENSOR_BYTES = 1 << 46
"""More than any machine has."""
_MAX_DIMENSIONS = 8
PACKED, FLOAT, CONSTANT = "packed", "float", "constant"
_PLAIN_KINDS = (FLOAT, CONSTANT)


def parse_spec(table: JsonTable) -> TensorSpec:
    """Reads name, type, shape and allowed values of an input, output or cache.

    Raises:
        FormatError: If something is missing, of a wrong type or out of range.
    """
    shape = table.sequence("shape")
    if len(shape) > _MAX_DIMENSIONS:
        raise FormatError(f"{table.where} has {len(shape)} dimensions, at most {_MAX_DIMENSIONS} are allowed")
    for size in shape:
        named = isinstance(size, str) and size
        if not named and not (type(size) is int and 1 <= size < 1 << 40):
            raise FormatError(f"{table.where}: a size must be a name or a positive integer, found {size!r}")
    return TensorSpec(
        name=table.text("name"),
        dtype=_parse_dtype(table),
        shape=tuple(shape),
        minimum=_parse_optional(table, "minimum"),
        maximum=_parse_optional(table, "maximum"),
        default=_parse_optional(table, "default"),
    )


def parse_stored(table: JsonTable) -> PlacedTensor:
    """Reads a tensor that lies in a file.

    Raises:
        FormatError: If something is missing, of a wrong type, or inconsistent with the rest.
    """
    spec = parse_spec(table)
    shape = tuple(size for size in spec.shape if isinstance(size, int))
    if len(shape) != len(spec.shape):
        raise FormatError(f"{table.where}: a stored tensor has no named sizes, found {spec.shape}")
    tensor = PlacedTensor(spec.name, spec.dtype, shape, table.integer("offset"), table.integer("bytes"))
    expected = math.prod(shape) * ITEM_BYTES[tensor.dtype]
    if tensor.bytes != expected or expected > MAX_TENSOR_BYTES:
        raise FormatError(
            f"{table.where}: {tensor.dtype} of shape {shape} takes {expected} bytes, found {tensor.bytes}"
        )
    if tensor.offset % WEIGHT_ALIGNMENT:
        raise FormatError(f"{table.where}: offset {tensor.offset} is not a multiple of {WEIGHT_ALIGNMENT}")
    return tensor


def parse_weight(table: JsonTable) -> PlacedWeight:
    """Reads a tensor of ``weights.bin``.

    Raises:
        FormatError: If something is missing, of a wrong type, or inconsistent with the rest.
    """
    stored, kind = parse_stored(table), table.text("kind")
    fields = (stored.name, stored.dtype, stored.shape, stored.offset, stored.bytes)
    if kind in _PLAIN_KINDS:
        return PlacedWeight(*fields, kind)
    if kind != PACKED:
        raise FormatError(f"{table.where}: 'kind' must be {PACKED}, {' or '.join(_PLAIN_KINDS)}, found {kind!r}")
    bits, zero_point = table.integer("bits"), table.number("zero_point")
    if bits not in SUPPORTED_BITS or not is_zero_point(bits, zero_point):
        raise FormatError(f"{table.where}: no grid has {bits} bits and the zero point {zero_point}")
    return PlacedWeight(*fields, kind, bits, zero_point)


def _parse_optional(table: JsonTable, key: str) -> int | None:
    return table.integer(key, at_least=-(1 << 62)) if key in table.items else None


def _parse_dtype(table: JsonTable) -> str:
    dtype = table.text("dtype")
    if dtype not in ITEM_BYTES:
        raise FormatError(f"{table.where}: dtype must be one of {', '.join(ITEM_BYTES)}, found {dtype!r}")
    return dtype
