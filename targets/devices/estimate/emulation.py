"""How often every instruction of a bundle's kernels runs: counted in an emulator by a plugin (``counter.c``)."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.tensor_sets import Call, encode_calls
from edgeq.targets.devices.emulator import install_command, is_emulator_ready
from edgeq.targets.devices.estimate.arm32 import ARCHITECTURE
from edgeq.targets.devices.estimate.machine_code import MachineCode
from edgeq.targets.runtime.names import RUNNER_FILE
from edgeq.targets.runtime.schema import Manifest
from edgeq.targets.toolchain.linkers import Linker, run_compiler

INSTALL = "apt-get install --no-install-recommends qemu-user"
_COUNTER = Path(__file__).parent / "counter.c"
_INTERFACE_2_SINCE = 9
"""qemu's version that dropped the first interface of plugins."""
_TIMEOUT_S = 1800
_UNDERSTOOD = {"x86_64": "x86_64", "aarch64": "aarch64", ARCHITECTURE: "arm"}
"""Architectures whose machine code ``machine_code.py`` and ``arm32.py`` read: how qemu names each."""
_NOT_EMULATED = ("avx512bw", "avx512_vnni", "avx_vnni")
"""Instruction sets that qemu does not have."""


@dataclasses.dataclass(frozen=True)
class Emulated:
    """One run of a model.

    Attributes:
        counts: Executions by address in the code file: first of a run of instructions, their number, times.
        kernels: For each kernel its name, calls, and bytes of its tensors, as ``edgeq-run --profile`` prints them.
        version: What the emulator says of itself.
    """

    counts: list[tuple[int, int, int]]
    kernels: list[dict[str, Any]]
    version: str


def emulate(folder: Path, manifest: Manifest, call: Call, *, target: Target) -> Emulated:
    """Runs a bundle once in an emulator and counts.

    Args:
        folder: The bundle.
        manifest: Its manifest.
        call: What to run.
        target: What the bundle was compiled for; it names the emulator.

    Raises:
        UnsupportedError: If no emulator has the processor's instructions.
        EdgeqError: If the emulator is missing or fails.
    """
    command = emulator_command(target)
    with tempfile.TemporaryDirectory(prefix="edgeq-estimate-") as temporary:
        plugin, inputs, out = (Path(temporary) / name for name in ("counter.so", "inputs", "counts"))
        version = version_of(command[0])
        build_counter(version, plugin)
        inputs.write_bytes(encode_calls([call], tagged=manifest.model.task == "seq2seq"))
        counting = ["-plugin", f"{plugin},out={out}"]
        options = ["--no-verify", "--threads", "1", "--profile", str(inputs)]
        words = [*command, *counting, str(folder / RUNNER_FILE), str(folder), *options]
        try:
            result = subprocess.run(
                words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeqError(f"{command[0]} could not run bundle {folder}: {error}") from error
        if result.returncode != 0 or not out.is_file():
            reason = (result.stderr.strip().splitlines() or [f"it ended with code {result.returncode}"])[-1]
            raise EdgeqError(f"bundle {folder} failed under {command[0]}: {reason}")
        rows = [line.split() for line in out.read_text(encoding="ascii").splitlines()]
        profile = json.loads(result.stdout)
    # The code of other programs lies elsewhere, and so outside of all instructions that are known.
    first = int(profile["code_address"])
    counts = [(int(address, 16) - first, int(size), int(times)) for address, size, times in rows]
    return Emulated(counts, profile["kernels"], version)


def emulator_command(target: Target) -> list[str]:
    """Returns the emulator that can load plugins, with the arguments that choose the processor.

    Raises:
        UnsupportedError: If qemu does not have the instructions of the target, or its machine code is not understood.
        EdgeqError: If it is not installed; the message says how to.
    """
    if target.isa in _NOT_EMULATED:
        raise UnsupportedError(
            f"no estimate for {target.name}: the emulator that counts instructions has no {target.isa}; measure the "
            "bundle on such a machine with `edgeq profile`"
        )
    if target.architecture not in _UNDERSTOOD:
        raise UnsupportedError(
            f"no estimate for {target.name}: what reads machine code knows {', '.join(_UNDERSTOOD)}, not "
            f"{target.architecture}; measure the bundle on the board with `edgeq profile --on`"
        )
    if "+thumb-mode" in target.features:
        raise UnsupportedError(
            f"no estimate for {target.name}: kernels must be ARM code, and its feature +thumb-mode asks for Thumb "
            "code; estimate a bundle that is compiled without it"
        )
    arguments: list[str] = ["-cpu", "max"]
    if target.emulator is not None:
        if not is_emulator_ready(target):
            raise EdgeqError(
                f"the emulator of {target.name} is not complete here; install it with "
                f"`{install_command(target.emulator)}`"
            )
        sysroot = ["-L", target.emulator.sysroot] if target.emulator.sysroot else []
        arguments = [*target.emulator.arguments, *sysroot]
    program = f"qemu-{_UNDERSTOOD[target.architecture]}"
    # The static build, which runs bundles elsewhere, cannot load plugins.
    if shutil.which(program) is None:
        raise EdgeqError(f"{program}, which counts instructions, is not installed; install it with `{INSTALL}`")
    return [program, *arguments]


def version_of(emulator: str) -> str:
    """Returns what the emulator says of its version."""
    result = subprocess.run([emulator, "--version"], capture_output=True, text=True, timeout=60, check=False)
    return (result.stdout.splitlines() or [emulator])[0]


def build_counter(version: str, out: Path) -> None:
    """Compiles the plugin for the interface that this version of the emulator has."""
    major = re.search(r"version (\d+)", version)
    interface = 2 if major and int(major[1]) >= _INTERFACE_2_SINCE else 1
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise EdgeqError("no C compiler for this machine; install one with `apt-get install gcc libc6-dev`")
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", f"-DPLUGIN_VERSION={interface}"]
    run_compiler(Linker(compiler, (compiler,)), [*flags, "-o", str(out), str(_COUNTER)], purpose="build counter.c")


def counts_by_address(emulated: Emulated, code: MachineCode) -> dict[int, int]:
    """Returns executions by the address of each instruction.

    qemu cuts code into runs of instructions of its own, which may overlap: an instruction's executions are the sum
    over those that hold it.
    """
    counts: collections.Counter[int] = collections.Counter()
    for address, size, times in emulated.counts:
        place = code.index(address)
        for one in code.instructions[place : place + size] if place is not None else ():
            counts[one.address] += times
    return dict(counts)
