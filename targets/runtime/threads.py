"""How many threads TVM's kernels use: chosen for each call, whatever ran before in this process.

TVM keeps one pool for every thread that calls it. A pool's size is read from ``TVM_NUM_THREADS`` when the
pool is first used, and later calls can only use fewer. So the variable is set to the most that may be
wanted before the first use, and every call then states the number it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edgeq.errors import UsageError
from edgeq.targets.runtime.tvm_import import import_tvm

_VARIABLE = "TVM_NUM_THREADS"
_ALL_KINDS_OF_CORES = 1
"""TVM's affinity mode ``kBig``; threads are not pinned (see import_tvm), so only the count matters."""


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def choose_threads(threads: int | None) -> int:
    """Returns the number of threads for a bundle and prepares pools that are that large.

    Args:
        threads: What the caller asked for; None takes ``TVM_NUM_THREADS`` or else every available core.

    Raises:
        UsageError: If the number is not positive.
    """
    wanted = threads
    if wanted is None:
        value = os.environ.get(_VARIABLE, "")
        wanted = int(value) if value.isdecimal() and int(value) > 0 else available_cores()
    if wanted < 1 or wanted > 1024:
        raise UsageError(f"threads must lie in 1..1024, found {wanted}")
    value = os.environ.get(_VARIABLE, "")
    current = int(value) if value.isdecimal() else 0
    os.environ[_VARIABLE] = str(max(current, wanted, available_cores()))
    return wanted


class ThreadPool:
    """Sets the number of threads of the calling thread's pool.

    Args:
        threads: Number wanted, at least 1.
    """

    def __init__(self, threads: int) -> None:
        tvm = import_tvm()
        self._threads = threads
        self._count: Callable[[], int] = tvm.get_global_func("runtime.NumThreads")
        self._configure: Callable[..., Any] = tvm.get_global_func("runtime.config_threadpool")

    def apply(self) -> None:
        """Makes the next kernels of this thread use the wanted number.

        Raises:
            UsageError: If this thread's pool was made smaller before edgeq was asked.
        """
        if self._count() == self._threads:
            return
        self._configure(_ALL_KINDS_OF_CORES, self._threads)
        if self._count() != self._threads:
            raise UsageError(
                f"{self._threads} threads were asked for, but TVM was used in this thread before with a pool "
                f"of {self._count()}; set {_VARIABLE}={self._threads} in the environment"
            )
