"""Compiling single kernels for every instruction set that this machine can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.objects import PASS_OPTIONS
from edgeq.targets.runtime.machine import this_machine

RUNNABLE = [
    name
    for name in ("x86-64-vnni", "x86-64-v3", "cortex-a76", "cortex-a72")
    if load_target(name).runs_on(this_machine())
]
"""Targets whose code runs here; the others are run under an emulator by the bundle tests."""

OTHER_PRODUCTS = [
    name for name in ("x86-64-v4", "x86-64-avxvnni", "x86-64-amx") if load_target(name).runs_on(this_machine())
]
"""Targets with an integer matmul of their own, and kernels that are otherwise those of another one."""

Kernel = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def compile_kernel() -> Callable[..., Kernel]:
    """Returns ``compile(prim_func, target_name)`` to a function of arrays; the last array is the output.

    A kernel that takes numbers behind its tensors is given them as ``numbers``.
    """
    import tvm

    def compile_(prim_func: Any, target: str = RUNNABLE[0]) -> Kernel:
        module = tvm.IRModule({"main": prim_func.with_attr("global_symbol", "main")})
        with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
            library = tvm.compile(module, target=tvm.target.Target(load_target(target).tvm_target))

        def run(*arrays: np.ndarray, outputs: int = 1, numbers: tuple[float, ...] = ()) -> Any:
            tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
            library["main"](*tensors, *numbers)
            results = [t.numpy() for t in tensors[-outputs:]]
            return results[0] if outputs == 1 else results

        return run

    return compile_


@pytest.fixture(scope="session")
def runnable() -> list[str]:
    """Names of the targets whose code runs here."""
    return RUNNABLE


@pytest.fixture(params=[*RUNNABLE, *OTHER_PRODUCTS])
def product_target(request: pytest.FixtureRequest) -> str:
    """Each target with an integer matmul of its own that this machine can run."""
    return str(request.param)


@pytest.fixture(params=RUNNABLE)
def target(request: pytest.FixtureRequest) -> str:
    """Each target that this machine can run."""
    return str(request.param)
