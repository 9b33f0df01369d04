"""Gives memory that is not used any more back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
from pathlib import Path

_STATUS = Path("/proc/self/statm")
_WORTHWHILE = 64 << 20
"""Bytes that the process must have grown by: a collection looks at every object that it has."""
_kept = 0
"""The least that the process held since the last time."""


def give_back(*, since: int | None = None) -> None:
    """Frees models, which are cycles, and what the C library keeps for later, once there is something to free.

    A tokenizer of 250,000 pieces takes some 300 MB while it is read, and glibc keeps them in small parts. Nothing
    happens until the process has grown by 64 MB since the last time.

    Args:
        since: What :func:`held` returned before something was made that is let go of by now: that is growth as well,
            though it was still in use the last time.
    """
    global _kept
    now = held()
    if since is not None:
        _kept = min(_kept, since)
    if now is not None and now < _kept + _WORTHWHILE:
        _kept = min(_kept, now)
        return
    gc.collect()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    _kept = held() or 0


def held() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    try:
        return int(_STATUS.read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None
