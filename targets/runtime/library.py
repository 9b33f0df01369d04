"""A linked model, ``model.so``, as functions: TVM's virtual machine around it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.targets.runtime.aligned import aligned_copy
from edgeq.targets.runtime.tvm_import import tvm_runtime

_CPU = 1
"""DLPack's device type of host memory."""
_POOLED = 2
"""TVM's allocator that keeps freed blocks for the next call."""


@dataclasses.dataclass(frozen=True)
class KernelTime:
    """Time spent in one kernel during one run: calls and seconds in total."""

    name: str
    calls: int
    seconds: float


def run_library(library: Path, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs ``main`` of a linked model once, on copies of its inputs and weights.

    Args:
        library: ``model.so`` for this machine.
        arguments: Inputs, then weights, in the order that ``main`` takes them.

    Returns:
        The outputs, in order.
    """
    return open_library(library, [])(arguments)


def open_library(
    library: Path, rest: Sequence[Any], *, function: str = "main"
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Returns a function of a linked model as a function of its inputs.

    Args:
        library: ``model.so`` for this machine; it may be deleted afterwards.
        rest: State and weights. Arrays are copied, TVM's tensors are shared; what calls do to the state stays for the
            next call.
        function: Name of the function.
    """
    machine = new_machine(load_library(library))
    kept = [to_tensor(array) if isinstance(array, np.ndarray) else array for array in rest]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [to_array(result) for result in machine[function](*map(to_tensor, inputs), *kept)]

    return run


def load_library(library: Path) -> Any:
    """Loads a linked model.

    Raises:
        RuntimeError: If it is none of this machine, or damaged.
    """
    return tvm_runtime().load_module(str(library.absolute()))


def to_tensor(array: np.ndarray) -> Any:
    """An array as compiled code takes it: a copy, which costs a quarter of what TVM's own copying does."""
    return tvm_runtime().from_dlpack(aligned_copy(array))


def to_array(tensor: Any) -> np.ndarray:
    """A tensor of compiled code as an array of its own: the tensor's memory goes back to TVM's allocator."""
    return np.array(np.from_dlpack(tensor))


def new_machine(library: Any) -> Any:
    """Returns a virtual machine for a loaded ``model.so``; the functions of the model are its items."""
    machine = library["vm_load_executable"]()
    machine["vm_initialization"](_CPU, 0, _POOLED)
    return machine


def time_kernels(
    library: Any, call: Callable[..., Any], arguments: Sequence[Any], *, function: str = "main"
) -> list[KernelTime]:
    """Runs a function once in a machine of its own and returns the time of each kernel, longest first.

    Args:
        library: A loaded ``model.so``.
        call: Calls a function with arguments, on the wanted number of threads.
        arguments: What the function takes.
        function: Its name.
    """
    machine = new_machine(library)
    spent: dict[str, list[float]] = {}
    started = 0.0

    def instrument(_function: Any, name: str, before: bool, _result: Any, *_arguments: Any) -> int:
        nonlocal started
        if before:
            started = time.perf_counter()
        else:
            spent.setdefault(str(name), []).append(time.perf_counter() - started)
        return 0

    machine["set_instrument"](instrument)
    call(machine[function], *arguments)
    times = [KernelTime(name, len(seconds), sum(seconds)) for name, seconds in spent.items()]
    return sorted(times, key=lambda kernel: -kernel.seconds)
