"""Imports TVM without what this package does not use."""

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

    tvm_ffi, which it needs, imports torch whenever torch is installed: seconds and hundreds of megabytes for
    conversions that are never used here. Unless torch is already loaded, it is hidden for the duration of the import,
    and can be imported afterwards as usual.

    Raises:
        EdgeqError: If apache-tvm is not installed or cannot be loaded.
    """
    # TVM pins the calling thread and its workers to the first cores. Whatever else runs in this process would inherit
    # that.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    with _LOCK:
        hide = not {"tvm", "torch"} & sys.modules.keys()
        if hide:
            sys.modules["torch"] = None  # type: ignore[assignment]  # makes "import torch" raise ImportError
        try:
            return importlib.import_module("tvm")
        except ImportError as error:
            raise EdgeqError(f"apache-tvm cannot be loaded ({error}); run: pip install 'edgeq[compile]'") from error
        finally:
            if hide:
                del sys.modules["torch"]
