"""Gives memory that is not used any more back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def give_back() -> None:
    """Frees models, which are cycles, and what the C library keeps for later.

    A tokenizer of 250,000 pieces takes some 300 MB while it is read, and glibc keeps them in small parts.
    """
    gc.collect()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
