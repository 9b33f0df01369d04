"""The kernels of low-bit layers as an object file: for runtimes other than TVM's.

They are the kernels that bundles hold, for matrices of any size (``kernels/any_size.py``). Each is a function with
TVM's calling convention: ``int f(void *, const TVMFFIAny *args, int32_t count, TVMFFIAny *result)``. Whoever links the
object brings ``__TVMBackendParallelLaunch``, which starts threads, ``__TVMBackendAllocWorkspace`` and
``__TVMBackendFreeWorkspace``, which give memory to a task, and ``TVMFFIErrorSetRaisedFromCStrParts``, which takes the
message of a refused argument.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeq.formats.packing import SUPPORTED_BITS
from edgeq.targets.builtin.target import Target
from edgeq.targets.compiler.library_output import without_library_output
from edgeq.targets.compiler.objects import PASS_OPTIONS
from edgeq.targets.compiler.tvm_import import import_tvm

UNPACKED = ("quantize_dynamic", "quantize_static", "attention")
"""Kernels that read no packed matrix."""
PACKED = ("product", "weight_only", "embedding")
"""Kernels that there is one of for each bit width."""


@dataclasses.dataclass(frozen=True)
class KernelObject:
    """A compiled family of kernels.

    Attributes:
        target: Level of processors that it runs on.
        path: The object file.
        symbols: Names of its functions, by :data:`UNPACKED` or ``(kernel, bits)`` of :data:`PACKED`.
    """

    target: Target
    path: Path
    symbols: dict[str | tuple[str, int], str]


@without_library_output()
def compile_kernel_object(target: Target, path: Path, *, bits: Sequence[int] = SUPPORTED_BITS) -> KernelObject:
    """Compiles the kernels for one level of processors.

    Args:
        target: What to compile for.
        path: Object file to write.
        bits: Bit widths that there shall be kernels for.
    """
    tvm = import_tvm()
    from edgeq.targets.compiler.isa import isa_named  # these import TVM, which import_tvm() must do first
    from edgeq.targets.compiler.kernels.numerics import instructions_of

    functions, symbols = {}, {}
    for key, build in _kernels(target, bits).items():
        parts = (key,) if isinstance(key, str) else key
        name = "_".join(["edgeq", target.isa, *map(str, parts)])
        with instructions_of(isa_named(target.isa)):
            functions[name] = build().with_attr("global_symbol", name)
        symbols[key] = f"__tvm_ffi_{name}"
    with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        library = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target(target.tvm_target))
    library.mod.write_to_file(str(path), "o")
    return KernelObject(target, path, symbols)


def _kernels(target: Target, bits: Sequence[int]) -> dict[str | tuple[str, int], Callable[[], Any]]:
    from edgeq.targets.compiler.isa import isa_named  # these import TVM, which import_tvm() must do first
    from edgeq.targets.compiler.kernels import any_size
    from edgeq.targets.compiler.kernels.int8_attention import any_int8_attention

    isa = isa_named(target.isa)
    kernels: dict[str | tuple[str, int], Callable[[], Any]] = {
        "quantize_dynamic": functools.partial(any_size.any_quantizer, static=False),
        "quantize_static": functools.partial(any_size.any_quantizer, static=True),
        "attention": functools.partial(any_int8_attention, isa),
    }
    for width in bits:
        kernels["product", width] = functools.partial(any_size.any_low_bit_matmul, isa, width)
        kernels["weight_only", width] = functools.partial(any_size.any_weight_only_matmul, isa, width)
        kernels["embedding", width] = functools.partial(any_size.any_low_bit_embedding, width)
    return kernels
