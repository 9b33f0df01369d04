"""Session options of ONNX Runtime with edgeq's operators in them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

import edgeq
from edgeq.errors import EdgeqError, UsageError
from edgeq.export.ort.library import LIBRARY_NAME, SHIM, build_library
from edgeq.files import cache_folder
from edgeq.progress import Progress
from edgeq.targets.builtin.target import library_level
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ
from edgeq.targets.toolchain.linkers import find_linker

_TARGETS = Path(edgeq.__file__).parent / "targets"
_SOURCES = [
    *SHIM.iterdir(),
    *(LIBEDGEQ / "library").glob("cpu.*"),
    *(_TARGETS / "compiler" / "kernels").glob("*.py"),
    *(_TARGETS / name for name in ("compiler/isa.py", "compiler/kernel_library.py", "builtin/target.py")),
]
"""Files that decide what the library is."""


def session_options(library: Path | str | None = None) -> Any:
    """Returns new ``onnxruntime.SessionOptions`` in which edgeq's operators are registered.

    Use them for sessions and for ``ORTModelFor...from_pretrained(folder, session_options=...)``. Without the library
    the same file runs as well, through the operators' bodies, and slowly.

    Args:
        library: What ``edgeq ort-library`` built; if omitted, one for this processor is built when it is first asked
            for (half a minute) and kept in the user's cache.

    Raises:
        UsageError: If the library does not exist.
        EdgeqError: If it cannot be built, or ONNX Runtime does not take it.
    """
    import onnxruntime

    path = cached_library() if library is None else Path(library)
    if not path.is_file():
        raise UsageError(f"{path} does not exist; build it with: edgeq ort-library {path.parent}")
    options = onnxruntime.SessionOptions()
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # a class of its own for each of ONNX Runtime's codes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EdgeqError(f"ONNX Runtime {onnxruntime.__version__} does not take {path}: {reason}") from error
    return options


def cached_library(progress: Progress | None = None) -> Path:
    """Returns the operator library for this processor from the user's cache; builds it if it is not there.

    Raises:
        UnsupportedError: If there are no kernels for this processor.
        EdgeqError: If it cannot be built.
    """
    folder = cache_folder() / "ort" / _fingerprint()
    if not (folder / LIBRARY_NAME).is_file():
        build_library(folder, levels=[library_level(this_machine())], progress=progress)
    return folder / LIBRARY_NAME


def _fingerprint() -> str:
    """Digest of everything that the library is made from."""
    host = library_level(this_machine())
    made_with = (importlib.metadata.version("apache-tvm"), find_linker(host), host.tvm_target)
    digest = hashlib.sha256(repr(made_with).encode())
    for path in sorted(_SOURCES):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
