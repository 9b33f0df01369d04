"""Imports tvm without what this package does not use."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from types import ModuleType

from edgeq.errors import EdgeqError

_LOCK = threading.Lock()


def import_tvm() -> ModuleType:
    """Returns the ``tvm`` package.

    tvm_ffi imports torch whenever torch is installed, which costs seconds and hundreds of megabytes for
    conversions that are never used here. Unless torch (or tvm) is already loaded, it is hidden for the
    duration of the import, and can be imported afterwards as usual.

    Raises:
        EdgeqError: If apache-tvm is not installed or cannot be loaded.
    """
    # TVM pins the calling thread and its workers to the first cores. Whatever else runs in this process
    # (a baseline that is being timed, a web server) would inherit that, so threads stay unpinned.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # An idle worker looks for work this many times before it sleeps. TVM's default keeps a core busy for a
    # tenth of a second after every call (seconds on a loaded machine); this is a millisecond, which is
    # still longer than any pause between two kernels.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "2000")
    with _LOCK:
        hide = not {"tvm", "tvm_ffi", "torch"} & sys.modules.keys()
        if hide:
            sys.modules["torch"] = None  # type: ignore[assignment]  # makes "import torch" raise ImportError
        try:
            return importlib.import_module("tvm")
        except ImportError as error:
            raise EdgeqError(
                f"apache-tvm cannot be loaded ({error}); run: pip install 'edgeq[runtime]'"
            ) from error
        finally:
            if hide:
                del sys.modules["torch"]
