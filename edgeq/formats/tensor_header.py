"""Reads the header of a safetensors file without trusting it: nothing is allocated from its claims."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.formats.json_file import parse_json
from edgeq.reading import open_regular

_LARGEST_HEADER = 100 * 1024 * 1024  # the limit of the safetensors library itself
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file.

    Attributes:
        dtype: Name in the format's own words, such as ``F32`` or ``U8``.
        shape: Its dimensions.
        offset: First byte, counted from the start of the file.
        bytes: Its size.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


def read_tensor_header(path: Path) -> dict[str, TensorEntry]:
    """Reads names, types, shapes and places of all tensors, and checks them against the file's size.

    Raises:
        FormatError: If the file is truncated, or its header is damaged or contradicts itself.
    """
    path = Path(path)
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise FormatError(
                f"{path} is not a safetensors file, or is cut off: its header does not fit in {size} bytes"
            )
        text = stream.read(length)
    try:
        header = parse_json(text.decode("utf-8"), where=f"the header of {path}")
    except UnicodeDecodeError:
        raise FormatError(f"the header of {path} is damaged: it is not UTF-8") from None
    if not isinstance(header, dict):
        raise FormatError(f"the header of {path} is damaged: it is not a JSON object")
    start = 8 + length
    entries = {name: _entry(path, name, e, start) for name, e in header.items() if name != "__metadata__"}
    _check_layout(path, entries, start=start, size=size)
    return entries


def _entry(path: Path, name: str, claim: object, start: int) -> TensorEntry:
    try:
        fields = claim if isinstance(claim, dict) else {}
        dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
        if dtype not in _BYTES or any(
            not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise FormatError(
            f"the header of {path} is damaged: the entry of tensor {name!r} makes no sense"
        ) from None
    expected = math.prod(shape) * _BYTES[dtype]
    if end - begin != expected:
        raise FormatError(
            f"{path}: tensor {name!r} of {dtype} and shape {shape} takes {expected} bytes, "
            f"the header gives {end - begin}"
        )
    return TensorEntry(dtype, tuple(shape), start + begin, expected)


def _check_layout(path: Path, entries: dict[str, TensorEntry], *, start: int, size: int) -> None:
    position = start
    for entry in sorted(entries.values(), key=lambda e: (e.offset, e.bytes)):
        if entry.offset != position:
            raise FormatError(f"the header of {path} is damaged: its tensors overlap or leave a gap")
        position += entry.bytes
    if position != size:
        raise FormatError(
            f"{path} should have {position} bytes by its header, found {size}: it is cut off or damaged"
        )
