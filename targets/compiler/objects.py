"""Kernels to object files, one each: equal kernels, in however many models of this process, are compiled once.

The layers of a model, its parts that parity compiles one by one, and models of one architecture share most of their
kernels, and LLVM takes most of the time of a compile.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgeq.targets.builtin.target import Target
from edgeq.targets.compiler.tvm_import import import_tvm

PASS_OPTIONS = {"tirx.disable_storage_rewrite": True}
"""Kernels say where their buffers are; the rewrite would move registers out of loops and into memory."""
_MOST = 1024
"""Kernels that are remembered, some 40 kB each."""

_compiled: dict[tuple[Any, ...], bytes] = {}


def compile_kernels(kernels: Any, target: Target) -> dict[str, bytes]:
    """Compiles kernels.

    Args:
        kernels: ``tvm.IRModule`` with the kernels, each with the name of its symbol.
        target: Processor to compile for.

    Returns:
        The object file of each kernel by name, in the order of names.
    """
    functions = {str(variable.name_hint): function for variable, function in kernels.functions_items()}
    return {name: _object(functions[name], target) for name in sorted(functions)}


def _object(kernel: Any, target: Target) -> bytes:
    import tvm_ffi

    # Structure alone forgets the names of buffers, which the checks of arguments say; text alone rounds numbers.
    key = tvm_ffi.StructuralKey(kernel), kernel.script(), repr(target.tvm_target)
    if key not in _compiled:
        if len(_compiled) >= _MOST:
            _compiled.clear()
        _compiled[key] = _compile(kernel, target)
    return _compiled[key]


def _compile(kernel: Any, target: Target) -> bytes:
    tvm = import_tvm()
    chosen = tvm.target.Target(target.tvm_target)
    with chosen, tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS), tempfile.TemporaryDirectory() as folder:
        compiled = tvm.compile(tvm.IRModule({kernel.attrs["global_symbol"]: kernel}), target=chosen)
        compiled.mod.write_to_file(f"{folder}/kernel.o", "o")
        return Path(folder, "kernel.o").read_bytes()
