"""Sizes and counts as people write them."""

from __future__ import annotations

import re

from edgeq.errors import UsageError

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse_bytes(text: str, *, option: str) -> int:
    """Reads a number of bytes such as ``8MB`` (8,000,000), ``7.5MiB`` or ``500000``.

    Args:
        text: What the user wrote.
        option: Where, for the message.

    Raises:
        UsageError: If it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower() or "b")
    if found is None or unit is None or float(found[1]) <= 0:
        raise UsageError(f"{option} should be a size such as 8MB, 7.5MiB or 500000, found {text!r}")
    return int(float(found[1]) * unit)


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, such as ``1 thread`` or ``2 threads``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
