"""Kernels to the code file of a bundle: a shared library that needs next to nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.compiler.compile import CompiledModel
from edgeq.targets.toolchain.elf import undefined_symbols
from edgeq.targets.toolchain.linkers import Linker, link_library

SYMBOL_PREFIX = "__tvm_ffi_"
"""What TVM puts before the name of a kernel to make its symbol."""
POINTERS = ("__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace")
"""Pointers to functions that run tasks on threads and give kernels memory, which a runtime writes."""
_OF_POINTERS = "__TVMBackend*"
"""Names them for linkers: lld refuses a name that no kernel of a model has, and takes a pattern that fits none."""
GIVEN = frozenset({"memcpy", "memset", "memmove", "TVMFFIErrorSetRaisedFromCStrParts", *POINTERS})
"""What a runtime gives a code file."""

_ELF_ARM = (40).to_bytes(2, "little")
"""The machine in the ELF header of code for 32-bit ARM."""
_ARMV7_SUPPORT = """\
void __aeabi_unwind_cpp_pr0(void) {}
void __aeabi_unwind_cpp_pr1(void) {}
int __aeabi_idiv0(int result) { return result; }
long long __aeabi_ldiv0(long long result) { return result; }
"""
"""What libgcc's division of 32-bit ARM needs beside itself. Its own answer to a division by zero calls `raise`; this
one returns the result that it is given, as the run-time ABI allows (IHI 0043). No kernel unwinds its stack."""


def link_code(compiled: CompiledModel, out: Path, linker: Linker) -> None:
    """Links the kernels of a model into a code file: the same kernels give the same bytes.

    Args:
        compiled: The model.
        out: File to write.
        linker: C compiler for the model's target.

    Raises:
        EdgeqError: If the linker fails, or the kernels need something that no runtime gives.
    """
    with tempfile.TemporaryDirectory() as folder:
        exports, objects = Path(folder) / "exports.map", []
        for number, data in enumerate(compiled.kernels.values()):
            objects.append(Path(folder) / f"kernel{number}.o")
            objects[-1].write_bytes(data)
        exports.write_text(f"{{ global: {SYMBOL_PREFIX}*; {_OF_POINTERS}; local: *; }};\n", encoding="ascii")
        if objects[0].read_bytes()[18:20] == _ELF_ARM:
            objects.append(Path(folder) / "support.c")
            objects[-1].write_text(_ARMV7_SUPPORT, encoding="ascii")
        link_library(linker, out, objects, exports=exports, purpose="link the kernels")
    unknown = sorted(undefined_symbols(out) - GIVEN)
    if unknown:
        raise EdgeqError(
            f"the kernels need {', '.join(unknown)}, which no runtime gives them; use another compiler than "
            f"{linker.name}"
        )
    out.chmod(0o644)
