"""How many threads kernels use."""

from __future__ import annotations

import os

from edgeq.errors import UsageError

_MOST_THREADS = 1024


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def choose_threads(threads: int | None) -> int:
    """Returns the number of threads for a bundle.

    Args:
        threads: What the caller asked for; None takes every available core.

    Raises:
        UsageError: If the number is not an integer in 1..1024.
    """
    if threads is None:
        return min(available_cores(), _MOST_THREADS)
    if type(threads) is not int or not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads must be an integer in 1..{_MOST_THREADS}, found {threads!r}")
    return threads
