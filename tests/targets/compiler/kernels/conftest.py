"""Compiling single kernels for every instruction set that this machine can run."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.objects import PASS_OPTIONS
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.linkers import ffi_headers, find_linker, run_compiler

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

_TYPE_CODES = {"i": 0, "u": 1, "f": 2}


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


@pytest.fixture(scope="module")
def emulate_on(tmp_path_factory, needs) -> Callable[[str, Any], Callable[..., list[np.ndarray]]]:
    """Returns ``emulate(target_name, prim_func)`` to a function of arrays that runs on an emulated ARM core.

    It returns all of them.
    """
    import tvm

    def compile_(name: str, function: Any) -> Callable[..., list[np.ndarray]]:
        core = load_target(name)
        board = "armhf" if core.architecture == "armv7" else "arm64"
        needs(f"{board}-emulator", f"{board}-compiler")
        folder = tmp_path_factory.mktemp("kernel")
        with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
            module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
            library = tvm.compile(module, target=tvm.target.Target(core.tvm_target))
        library.mod.write_to_file(str(folder / "kernel.o"), "o")
        program, main = folder / "kernel", Path(__file__).with_name("kernel_main.c")
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-static", f"-I{ffi_headers()}"]
        files = ["-o", str(program), str(main), str(folder / "kernel.o"), "-lm"]
        run_compiler(find_linker(core), [*flags, *files], purpose="link a kernel")

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            with (folder / "in").open("wb") as stream:
                for array in arrays:
                    stream.write(struct.pack("<3i", _TYPE_CODES[array.dtype.kind], array.itemsize * 8, array.ndim))
                    stream.write(struct.pack(f"<{array.ndim}q", *array.shape) + array.tobytes())
            command = [core.emulator.program, *core.emulator.arguments, str(program), "in", "out"]
            subprocess.run(command, check=True, timeout=300, cwd=folder)
            data, results, at = (folder / "out").read_bytes(), [], 0
            for array in arrays:
                results.append(np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape))
                at += array.nbytes
            return results

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
