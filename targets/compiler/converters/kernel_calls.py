"""How a converter calls a kernel: built once for each set of parameters, named for profiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, tirx

from edgeq.formats.low_bit import PackedMatrix
from edgeq.targets.compiler.isa import Isa

Key = tuple[Any, ...]
"""Name of a kernel, then everything that its code depends on besides the instruction set."""

_Scope = Isa | tuple[bool, ...]
_built: dict[tuple[_Scope, Key], tirx.PrimFunc] = {}
"""Kernels that this process has built, for one instruction set or for all with such floats: TVM reads them slowly."""


class KernelCalls:
    """Emits calls of kernels into the function that is being built.

    Args:
        builder: Relax block builder of that function.
        isa: Instruction set that the kernels are built for.
    """

    def __init__(self, builder: relax.BlockBuilder, isa: Isa) -> None:
        self.builder = builder
        self._isa = isa
        self.quantized: dict[Key, list[Any]] = {}
        """Quantized activations by the tensor (and static scale) that they were made from."""
        self._kernels: dict[Key, Any] = {}

    def kernel(self, key: Key, build: Callable[[], Any]) -> Any:
        """Returns the kernel that ``build()`` makes, the same for all instruction sets, made once for each ``key``."""
        return self._kernel(key, build, self._isa.float_instructions)

    def isa_kernel(self, key: Key, build: Callable[[Isa], Any]) -> Any:
        """Returns the kernel that ``build(isa)`` makes for the instruction set, made once for each ``key``."""
        return self._kernel(key, lambda: build(self._isa), self._isa)

    def _kernel(self, key: Key, build: Callable[[], Any], scope: _Scope) -> Any:
        if key not in self._kernels:
            if (scope, key) not in _built:
                _built[scope, key] = build().without_attr("global_symbol")
            self._kernels[key] = self.builder.add_func(_built[scope, key], _name(key))
        return self._kernels[key]

    def call(self, key: Key, build: Callable[[], Any], inputs: list[Any], outputs: Any) -> Any:
        """Emits a call of :meth:`kernel`; ``outputs`` is one tensor type, or a list of them for a tuple."""
        return self.builder.emit(relax.call_tir(self.kernel(key, build), inputs, outputs))

    def isa_call(self, key: Key, build: Callable[[Isa], Any], inputs: list[Any], outputs: Any) -> Any:
        """Emits a call of :meth:`isa_kernel`; see :meth:`call`."""
        return self.builder.emit(relax.call_tir(self.isa_kernel(key, build), inputs, outputs))

    def parts(self, value: Any, count: int) -> list[Any]:
        """Returns the first ``count`` elements of a tuple as variables."""
        return [self.builder.emit(relax.TupleGetItem(value, index)) for index in range(count)]


def shape_of(x: Any) -> list[Any]:
    """Dimensions of a Relax tensor: integers and symbolic expressions."""
    return list(x.ty.shape)


def is_size(dimension: Any, number: int) -> bool:
    """Whether a dimension is known and has this size."""
    return isinstance(dimension, tirx.IntImm) and int(dimension) == number


def tensor(shape: list[Any], dtype: str = "float32") -> relax.TensorType:
    """Type of a tensor."""
    return relax.TensorType(shape, dtype)


def _name(key: Key) -> str:
    """Name of a kernel in profiles: operator, then rows x columns and bits of its weight, or its sizes."""
    operator, *details = key
    parts = [str(operator)]
    for detail in details:
        if isinstance(detail, PackedMatrix):
            parts.append(f"{detail.rows}x{detail.columns}_w{detail.bits}")
        elif isinstance(detail, int) and not isinstance(detail, bool) and detail > 3:
            parts.append(str(detail))
        elif isinstance(detail, str) and detail != "none":
            parts.append(detail)
    return "_".join(parts)


Converter = Callable[[KernelCalls, list[Any], dict[str, Any]], Any]
"""From a node to Relax calls."""
