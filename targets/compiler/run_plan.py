"""Runs plans in this process without a bundle: for parts of models, and for the outputs that a bundle must give.

It follows a plan word for word, with a new array for every tensor. What devices run is libedgeq.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError
from edgeq.targets.compiler.compile import CompiledModel, TensorInfo
from edgeq.targets.compiler.tvm_import import import_tvm
from edgeq.targets.runtime.plan import Expression, Plan, PlanView

_ALIGNMENT = 64
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}


class CompiledCode:
    """The functions of a compiled model as functions of arrays.

    Args:
        compiled: The model, compiled for this machine.
        library: Its kernels, linked into a shared library; it may be deleted afterwards.
    """

    def __init__(self, compiled: CompiledModel, library: Path) -> None:
        self._compiled = compiled
        self._kernels = import_tvm().runtime.load_module(str(library.absolute()))
        self._weights = [_aligned(weight.array) for weight in compiled.weights]

    def run(
        self, inputs: Sequence[np.ndarray], *, state: Sequence[np.ndarray] = (), function: str = "main"
    ) -> list[np.ndarray]:
        """Runs a function.

        Args:
            inputs: Its inputs, in order.
            state: Its state, in order, which it changes in place.
            function: Its name.

        Returns:
            Its outputs, in order.
        """
        compiled = self._compiled
        interface = compiled if function == "main" or compiled.encoder is None else compiled.encoder
        arrays = {"i": [_aligned(array) for array in inputs], "s": list(state), "w": self._weights}
        dims: dict[str, int] = {}
        for infos, given in ((interface.inputs, arrays["i"]), (interface.state, arrays["s"])):
            _bind(infos, given, dims)
        return _execute(compiled.plans[function], arrays, dims, self._kernels)


def aligned_zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns an array of zeros at an address that vector instructions may use."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def evaluate(expression: Expression, dims: dict[str, int]) -> int:
    """Returns the value of an expression of a plan.

    Raises:
        FormatError: If it is none.
    """
    if isinstance(expression, int):
        return expression
    stack: list[int] = []
    try:
        for word in expression.split(" "):
            if word in _OPERATORS:
                right, left = stack.pop(), stack.pop()
                stack.append(_OPERATORS[word](left, right))
            else:
                stack.append(dims[word] if word in dims else int(word))
        (value,) = stack
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise FormatError(f"{expression!r} is no expression of the dimensions {sorted(dims)}") from error
    return value


def _aligned(array: np.ndarray) -> np.ndarray:
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def _bind(infos: Sequence[TensorInfo], arrays: Sequence[np.ndarray], dims: dict[str, int]) -> None:
    for info, array in zip(infos, arrays, strict=True):
        for size, found in zip(info.shape, array.shape, strict=True):
            if isinstance(size, str):
                dims.setdefault(size, found)


def _execute(
    plan: Plan, arrays: dict[str, list[np.ndarray]], dims: dict[str, int], kernels: Any
) -> list[np.ndarray]:
    from_dlpack = import_tvm().runtime.from_dlpack
    arrays = {**arrays, "t": []}

    def array(argument: str) -> np.ndarray:
        return arrays[argument[0]][int(argument[1:])]

    for tensor in plan.tensors:
        shape = [evaluate(size, dims) for size in tensor.shape]
        if isinstance(tensor, PlanView):
            arrays["t"].append(array(tensor.of).reshape(shape))
        else:
            arrays["t"].append(aligned_zeros(shape, tensor.dtype))
    for step in plan.steps:
        kernels[step.kernel](
            *(from_dlpack(array(arg)) if isinstance(arg, str) else evaluate(arg[0], dims) for arg in step.args)
        )
    return [array(output) for output in plan.outputs]
