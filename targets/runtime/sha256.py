"""SHA-256 without OpenSSL: ``hashlib`` loads it, which takes 3.5 MB of memory and longer than all else of this runtime.

CPython has a function of its own beside it, under a name that depends on the version.
"""

from __future__ import annotations

import importlib
from typing import Any


def _own_function() -> Any:
    for module in ("_sha2", "_sha256"):  # since CPython 3.12, and before
        try:
            return importlib.import_module(module).sha256
        except ImportError:
            continue
    return importlib.import_module("hashlib").sha256


_FUNCTION = _own_function()


def sha256_of(data: bytes) -> str:
    """Returns the SHA-256 of some bytes as 64 hexadecimal digits."""
    return str(_FUNCTION(data).hexdigest())
