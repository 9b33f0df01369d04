"""How the state of a decoder lays out keys and values: in vectors of 16 neighbouring tokens.

Floats: keys ``[batch, heads, context/16, head_size, 16]``, values ``[batch, heads, context, head_size]``. As int8, both
are ``[batch, heads, context/16, bytes of a block]``: the codes of 16 tokens in the same order, and behind them their
scales, 16 float32. So scales lie beside what they belong to, and whoever copies a sequence copies blocks.
"""

from __future__ import annotations

LANES = 16
"""Neighbouring keys of one stored vector."""
SCALE_BYTES = 4


def block_bytes(head_size: int) -> int:
    """Returns the bytes that 16 tokens of one head take in an int8 cache of keys, or of values."""
    return LANES * (head_size + SCALE_BYTES)


def head_size_of(block: int) -> int:
    """Returns the columns of a head from the bytes of a block."""
    return block // LANES - SCALE_BYTES
