"""Time of each kernel of a call, as libedgeq's ``edgeq_watch_kernels`` tells it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from edgeq.targets.runtime.native import declare

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t


class KernelTime(NamedTuple):
    """Time spent in one kernel during one run: calls and seconds in total."""

    name: str
    calls: int
    seconds: float


class KernelTimeRecord(ctypes.Structure):
    """``edgeq_kernel_time``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("step", _size),
        ("seconds", ctypes.c_double),
        ("bytes", ctypes.c_uint64),
        ("weight_bytes", ctypes.c_uint64),
    )


Watch = ctypes.CFUNCTYPE(None, _pointer, ctypes.POINTER(KernelTimeRecord))
"""What ``edgeq_watch_kernels`` calls."""


@functools.cache
def with_kernel_times(library: ctypes.CDLL) -> ctypes.CDLL:
    """Returns a library whose function that watches kernels may be called."""
    declare(library, {"edgeq_watch_kernels": (ctypes.c_int32, _pointer, Watch, _pointer)})
    return library


def watched(
    library: ctypes.CDLL, session: ctypes.c_void_p, run: Callable[[], Any], check: Callable[[int], None]
) -> list[KernelTime]:
    """Runs something in a session and returns the time of each kernel, longest first.

    Args:
        library: The library.
        session: Its handle of the session.
        run: What calls a function of the model.
        check: Raises the error of a status.
    """
    watch_kernels = with_kernel_times(library).edgeq_watch_kernels
    spent: dict[str, list[float]] = {}

    def note(_context: Any, record: Any) -> None:
        spent.setdefault(record.contents.name.decode(), []).append(record.contents.seconds)

    watch = Watch(note)
    check(watch_kernels(session, watch, None))
    try:
        run()
    finally:
        check(watch_kernels(session, Watch(), None))
    times = [KernelTime(name, len(seconds), sum(seconds)) for name, seconds in spent.items()]
    return sorted(times, key=lambda kernel: -kernel.seconds)
