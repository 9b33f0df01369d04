"""How many threads TVM's kernels use: chosen for each call, whatever ran before in this process.

TVM keeps one pool for every thread that calls it. ``TVM_NUM_THREADS`` is read when a pool is made, which
fixes its size, and at every kernel, which runs alone if the variable says 1 (or if it is unset and the
machine has two cores). So the variable is kept at the most that any bundle here may want, every call states
the number it uses, and where a thread's pool was made too small before, the call moves to a thread of its
own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeq.errors import UsageError
from edgeq.targets.runtime.tvm_import import tvm_runtime

_VARIABLE = "TVM_NUM_THREADS"
_MOST_THREADS = 1024
_ALL_KINDS_OF_CORES = 1
"""TVM's affinity mode ``kBig``; threads are not pinned (see import_tvm), so only the count matters."""
_USERS_CHOICE = os.environ.get(_VARIABLE)
"""What the variable held before this package changed it."""


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def choose_threads(threads: int | None) -> int:
    """Returns the number of threads for a bundle.

    Args:
        threads: What the caller asked for; None takes ``TVM_NUM_THREADS`` or else every available core.

    Raises:
        UsageError: If the number is not in 1..1024.
    """
    if threads is None:
        return _parsed(_USERS_CHOICE) or available_cores()
    if not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads must lie in 1..{_MOST_THREADS}, found {threads}")
    return threads


def users_environment() -> dict[str, str]:
    """Returns the environment for other programs: as it was before this package changed it."""
    environment = {key: value for key, value in os.environ.items() if key != _VARIABLE}
    return environment if _USERS_CHOICE is None else {**environment, _VARIABLE: _USERS_CHOICE}


def _parsed(value: str | None) -> int:
    """The number of threads that the variable's value asks for, or 0 if it asks for none."""
    return min(int(value), _MOST_THREADS) if value is not None and value.isdecimal() else 0


class KernelThreads:
    """Calls TVM functions with a fixed number of kernel threads.

    Args:
        threads: Number wanted, at least 1.
    """

    def __init__(self, threads: int) -> None:
        tvm = tvm_runtime()
        self._threads = threads
        self._count: Callable[[], int] = tvm.get_global_func("runtime.NumThreads")
        self._configure: Callable[..., Any] = tvm.get_global_func("runtime.config_threadpool")
        self._own_thread: ThreadPoolExecutor | None = None
        most = max(threads, available_cores(), _parsed(os.environ.get(_VARIABLE)))
        if os.environ.get(_VARIABLE) != str(most):
            os.environ[_VARIABLE] = str(most)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns ``function(*arguments)``, whose kernels ran on the wanted number of threads."""
        if self._apply():
            return function(*arguments)
        if self._own_thread is None:
            self._own_thread = ThreadPoolExecutor(1, thread_name_prefix="edgeq")
        return self._own_thread.submit(self._apply_and_call, function, *arguments).result()

    def _apply_and_call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._apply()
        return function(*arguments)

    def _apply(self) -> bool:
        """Sets the number in the calling thread; returns False if its pool is too small."""
        count = self._count()  # makes the pool if this is its first use
        if count == self._threads:
            return True
        self._configure(_ALL_KINDS_OF_CORES, self._threads)
        return self._count() == self._threads
