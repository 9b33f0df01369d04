"""Bytes that an instruction can move between a core and its memory, at most: from its text."""

from __future__ import annotations

import re

from edgeq.targets.devices.estimate.arm32 import bytes_moved_arm32

_WIDTHS = {"q": 16, "v": 16, "x": 8, "d": 8, "w": 4, "s": 4, "h": 2, "b": 1}
"""AArch64: bytes of a register by its first letter."""
_ONE_ELEMENT = 8
_X86_VECTORS = (("%zmm", 64), ("%ymm", 32), ("%xmm", 16))


def bytes_moved(text: str, *, bits32: bool = False) -> int:
    """Returns at least as many bytes as the instruction loads or stores; 0 if it does neither.

    Args:
        text: x86-64 in AT&T's syntax, or ARM of 64 or 32 bits.
        bits32: Whether it is ARM of 32 bits.
    """
    name, _, operands = text.partition(" ")
    if bits32:
        return bytes_moved_arm32(name, operands)
    if "%" in operands or "(" in operands:
        return _x86(name, operands)
    return _arm(name, operands) if "[" in operands and re.match(r"(ld|st)", name) else 0


def _x86(name: str, operands: str) -> int:
    if "(" not in operands or name.startswith(("lea", "nop", "prefetch", "j", "call")):
        return 0
    if "broadcast" in name or re.search(r"s[sd]$", name):
        return _ONE_ELEMENT
    return next((width for register, width in _X86_VECTORS if register in operands), _ONE_ELEMENT)


def _arm(name: str, operands: str) -> int:
    if name.startswith("ld1r") or name.endswith(("b", "h")):
        return _ONE_ELEMENT
    registers = re.findall(r"\b([qvxdwshb])\d+", operands.partition("[")[0])
    return sum(_WIDTHS[letter] for letter in registers) or _ONE_ELEMENT
