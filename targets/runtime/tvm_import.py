"""Imports TVM without what this package does not use: the small runtime to run models, the whole to compile them."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType

from edgeq.errors import EdgeqError

_LOCK = threading.Lock()


def import_tvm() -> ModuleType:
    """Returns the ``tvm`` package, compiler included: 120 MiB of memory more than :func:`tvm_runtime` takes.

    Raises:
        EdgeqError: If apache-tvm is not installed or cannot be loaded.
    """
    return _import("tvm")


@functools.cache
def tvm_runtime() -> ModuleType:
    """Returns ``tvm_ffi`` with TVM's runtime library loaded: virtual machine, thread pool and memory.

    The library is the file that ``import tvm`` loads as well, so that both may be used in one process.

    Raises:
        EdgeqError: If apache-tvm is not installed or cannot be loaded.
    """
    ffi = _import("tvm_ffi")
    if "tvm" not in sys.modules:
        found = importlib.util.find_spec("tvm")
        folders = [] if found is None else list(found.submodule_search_locations or [])
        library = Path(folders[0] if folders else "tvm") / "lib" / "libtvm_runtime.so"
        try:
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise _not_loaded(error) from error
    return ffi


def _import(package: str) -> ModuleType:
    """Imports a package of TVM with torch hidden.

    tvm_ffi imports torch whenever torch is installed, which costs seconds and hundreds of megabytes for
    conversions that are never used here. Unless torch is already loaded, it is hidden for the
    duration of the import, and can be imported afterwards as usual.
    """
    # TVM pins the calling thread and its workers to the first cores. Whatever else runs in this process
    # (a baseline that is being timed, a web server) would inherit that, so threads stay unpinned.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    # An idle worker looks for work this many times before it sleeps. TVM's default keeps a core busy for a
    # tenth of a second after every call (seconds on a loaded machine); this is a millisecond, which is
    # still longer than any pause between two kernels.
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "2000")
    with _LOCK:
        hide = not {package, "torch"} & sys.modules.keys()
        if hide:
            sys.modules["torch"] = None  # type: ignore[assignment]  # makes "import torch" raise ImportError
        try:
            return importlib.import_module(package)
        except ImportError as error:
            raise _not_loaded(error) from error
        finally:
            if hide:
                del sys.modules["torch"]


def _not_loaded(error: Exception) -> EdgeqError:
    return EdgeqError(f"apache-tvm cannot be loaded ({error}); run: pip install 'edgeq[runtime]'")
