"""What a shared library for Linux needs from others."""

from __future__ import annotations

import struct
from pathlib import Path

from edgeq.errors import FormatError

_DYNSYM = 11
"""Type of the section with the symbols that other libraries see or give."""


def undefined_symbols(library: Path) -> set[str]:
    """Returns the names of functions and data that others must give a library.

    Raises:
        FormatError: If the file is no little-endian ELF file.
    """
    data = library.read_bytes()
    if data[:4] != b"\x7fELF" or data[5:6] != b"\x01":
        raise FormatError(f"{library} is no little-endian ELF file; link it again")
    try:
        return _undefined(data, wide=data[4] == 2)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"{library} is a damaged ELF file ({error}); link it again") from error


def _undefined(data: bytes, *, wide: bool) -> set[str]:
    (start,) = struct.unpack_from("<Q" if wide else "<I", data, 0x28 if wide else 0x20)
    step, count = struct.unpack_from("<HH", data, 0x3A if wide else 0x2E)
    sections = [_section(data, start + step * number, wide=wide) for number in range(count)]
    names: set[str] = set()
    for kind, offset, size, link, item in sections:
        if kind != _DYNSYM:
            continue
        texts = sections[link][1]
        for at in range(offset + item, offset + size, item):
            name, defined = struct.unpack_from("<I2xH" if wide else "<I10xH", data, at)
            if defined == 0:
                names.add(data[texts + name : data.index(b"\0", texts + name)].decode("ascii"))
    return names


def _section(data: bytes, at: int, *, wide: bool) -> tuple[int, int, int, int, int]:
    """Type, offset, size, number of the linked section, size of an item."""
    if wide:
        kind, offset, size, link, item = struct.unpack_from("<4xI16xQQI12xQ", data, at)
    else:
        kind, offset, size, link, item = struct.unpack_from("<4xI8xIII8xI", data, at)
    return kind, offset, size, link, item
