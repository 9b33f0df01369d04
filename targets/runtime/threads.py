"""How many threads kernels use."""

from __future__ import annotations

import ctypes
import os
import re

from edgeq.errors import UsageError

_MOST_THREADS = 1024
_FIRST_NUMBER = re.compile(r"\s*(\d{1,4})\s*(,.*)?")
"""Of ``OMP_NUM_THREADS``; "4,2" is for nested regions, of which the first number counts."""


def choose_threads(threads: int | None, library: ctypes.CDLL) -> int:
    """Returns the number of threads for a bundle.

    Args:
        threads: What the caller asked for; None takes what ``OMP_NUM_THREADS`` says, or else every core that the
            process may use, by its affinity and the quota of its control groups.
        library: The library of the bundle.

    Raises:
        UsageError: If the number is not an integer in 1..1024.
    """
    if threads is None:
        found = _FIRST_NUMBER.fullmatch(os.environ.get("OMP_NUM_THREADS", ""))
        wanted = int(found[1]) if found else 0
        return wanted if 1 <= wanted <= _MOST_THREADS else min(int(library.edgeq_cores()), _MOST_THREADS)
    if type(threads) is not int or not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads must be an integer in 1..{_MOST_THREADS}, found {threads!r}")
    return threads
