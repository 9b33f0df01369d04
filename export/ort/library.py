"""Builds ``libedgeq_ort.so``: the kernels of bundles, compiled ahead of time, behind ONNX Runtime's C interface."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import UnsupportedError
from edgeq.files import check_new_file
from edgeq.formats.low_bit import OP_DOMAIN
from edgeq.formats.packing import SUPPORTED_BITS
from edgeq.progress import Progress, silent
from edgeq.targets.builtin.target import Target, load_target, processor_levels
from edgeq.targets.compiler.kernel_library import PACKED, UNPACKED, KernelObject, compile_kernel_object
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ
from edgeq.targets.toolchain.linkers import Linker, ffi_headers, find_linker, run_compiler

LIBRARY_NAME = "libedgeq_ort.so"
SHIM = Path(__file__).parent / "shim"

_MARKER = OP_DOMAIN.encode() + b"\0"
"""The domain of edgeq's operators, which their library registers."""
_ENTRY_POINT = "{ global: RegisterCustomOps; local: *; };\n"
_FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-Wall",
    "-Wextra",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-s",
    "-Wl,--build-id=none",
    "-Wl,-z,nodelete",  # threads of the session may call into it when they end
)


def build_library(
    out: Path | str,
    *,
    target: Target | None = None,
    levels: Sequence[Target] | None = None,
    bits: Sequence[int] = SUPPORTED_BITS,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Builds the operator library for one architecture.

    It holds the kernels of several levels of processors, and takes the best one that it finds itself on. The same file
    serves ONNX Runtime 1.17 and all later releases.

    Args:
        out: Folder for ``libedgeq_ort.so``, which replaces one that is there; or a file name that ends in ``.so``.
        target: Any processor of the architecture; this machine if omitted.
        levels: Levels of processors of that architecture that it shall have kernels for, best first; all if omitted.
        bits: Bit widths that it shall have kernels for.
        force: Replace a file of that name even if it is something else.
        progress: Told how far the work is.

    Returns:
        The library's path.

    Raises:
        UsageError: If something else than such a library has that name.
        UnsupportedError: If there are no kernels for the architecture.
        EdgeqError: If a C compiler or the headers of apache-tvm-ffi are missing, or the compiler fails.
    """
    report = progress or silent
    chosen = target or load_target("host")
    levels = processor_levels(chosen.architecture) if levels is None else levels
    if not levels:
        raise UnsupportedError(f"{chosen.name}: there are no kernels of operators for {chosen.architecture}")
    linker = find_linker(chosen)
    path = Path(out) if Path(out).suffix == ".so" else Path(out) / LIBRARY_NAME
    check_new_file(path, verb="ort-library", marker=_MARKER, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
        folder = Path(name)
        objects = []
        for done, level in enumerate(levels):
            report("compiling kernels", done, len(levels) + 1)
            objects.append(compile_kernel_object(level, folder / f"{level.isa}.o", bits=bits))
        report("compiling kernels", len(levels), len(levels) + 1)
        _link(linker, objects, folder)
        os.replace(folder / LIBRARY_NAME, path)
    report("compiling kernels", len(levels) + 1, len(levels) + 1)
    return path


def _link(linker: Linker, objects: Sequence[KernelObject], folder: Path) -> None:
    (folder / "table.c").write_text(kernel_table(objects), encoding="utf-8")
    (folder / "exports.txt").write_text(_ENTRY_POINT, encoding="utf-8")
    arguments = [
        *_FLAGS,
        f"-Wl,--version-script={folder / 'exports.txt'}",
        f"-I{ffi_headers()}",
        f"-I{SHIM}",
        f"-I{LIBEDGEQ / 'library'}",
        "-o",
        str(folder / LIBRARY_NAME),
        *(str(path) for path in sorted(SHIM.glob("*.c"))),
        str(LIBEDGEQ / "library" / "cpu.c"),
        str(folder / "table.c"),
        *(str(built.path) for built in objects),
        "-lm",
        "-lpthread",
    ]
    run_compiler(linker, arguments, purpose=f"build {LIBRARY_NAME}")


def kernel_table(objects: Sequence[KernelObject]) -> str:
    """Returns the C source of the table that ``shim/kernels.h`` declares."""
    lines = ['#include "kernels.h"', "", "#include <stddef.h>", ""]
    symbols = [symbol for built in objects for symbol in built.symbols.values()]
    lines += [f"int {symbol}(void *, const TVMFFIAny *, int32_t, TVMFFIAny *);" for symbol in symbols]
    lines += ["", "const KernelFamily kernel_families[] = {"]
    for built in objects:
        flags = ", ".join(f'"{flag}"' for flag in built.target.cpu_flags)
        entries = [f'"{built.target.isa}"', f"(const char *const[]){{{flags}, NULL}}"]
        entries += [built.symbols[name] for name in UNPACKED]
        for name in PACKED:
            row = ", ".join(built.symbols.get((name, width), "NULL") for width in SUPPORTED_BITS)
            entries.append(f"{{{row}}}")
        lines.append(f"  {{{', '.join(entries)}}},")
    lines += ["};", f"const int kernel_family_count = {len(objects)};", ""]
    return "\n".join(lines)
