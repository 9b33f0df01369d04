"""A kernel is compiled once a run, whichever of pytest's processes needs it first.

Each process remembers its own kernels (``edgeq.targets.compiler.objects``); LLVM takes most of the time of a compile.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _shared_kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    from edgeq.targets.compiler import objects

    compiled_here = objects._compile
    folder = tmp_path_factory.getbasetemp().parent / "kernels"
    folder.mkdir(exist_ok=True)

    def compile_or_read(kernel: Any, target: Any) -> bytes:
        import tvm_ffi

        # As in the memory of a process: structure alone forgets names, text alone rounds numbers.
        parts = hash(tvm_ffi.StructuralKey(kernel)), kernel.script(), target.tvm_target
        file = folder / hashlib.sha256(repr(parts).encode()).hexdigest()
        if not file.exists():
            _write(file, compiled_here(kernel, target))
        return file.read_bytes()

    objects._compile = compile_or_read


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(file)
