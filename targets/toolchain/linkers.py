"""The C compiler that links a bundle's code and builds libedgeq for a target."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import Target
from edgeq.targets.runtime.machine import this_machine

_OLDEST_GLIBC = "2.28"
"""Of the C library that bundles run with where no other is asked for: Debian 10's, of 2018."""
_NATIVE_COMPILERS = ("cc", "gcc", "clang")
_DEBIAN_NAMES = {"aarch64": "arm64", "armv7": "armhf", "riscv64": "riscv64", "x86_64": "amd64"}
_GNU_TRIPLES = {"armv7": "arm-linux-gnueabihf"}
"""Where GNU's compilers and zig name an architecture otherwise than ``ARCHITECTURE-linux-gnu``."""
_TIMEOUT_S = 300


@dataclasses.dataclass(frozen=True)
class Linker:
    """A C compiler for one architecture.

    Attributes:
        name: Short name for manifests.
        command: Program and arguments that come before all others.
    """

    name: str
    command: tuple[str, ...]

    @property
    def version(self) -> str:
        """First line that the compiler says about itself, or ``unknown``."""
        program = shutil.which(self.command[0])
        return _version(self.command, str(Path(program).absolute())) if program else "unknown"


@functools.cache
def _version(command: tuple[str, ...], program: str) -> str:
    with tempfile.TemporaryDirectory() as folder:  # zig, asked for its version for macOS, writes a file `a.o`
        try:
            result = subprocess.run(
                [*command, "--version"],
                executable=program, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
    return result.stdout.strip().splitlines()[0] if result.stdout.strip() else "unknown"


def find_linker(target: Target) -> Linker:
    """Returns the C compiler for ``target``: the native one, Debian's cross compiler, or zig.

    Raises:
        EdgeqError: If none is installed; the message says what to install.
    """
    for linker in _candidates(target):
        if linker is not None:
            return linker
    raise EdgeqError(
        f"no C compiler for {target.architecture} ({target.name}): install one with "
        f"`{install_command(target)}`, then compile again"
    )


def install_command(target: Target) -> str:
    """Returns the command that installs a compiler for ``target``."""
    if target.linker == "cc" or _is_native(target):
        return "apt-get install gcc libc6-dev"
    if target.linker == "zig":
        return "pip install ziglang"
    compiler = f"gcc-{gnu_triple(target).replace('_', '-')}"
    library = f"libc6-dev-{_DEBIAN_NAMES[target.architecture]}-cross"
    return f"apt-get install {compiler} {library}` or `pip install ziglang"


def gnu_triple(target: Target) -> str:
    """Returns what GNU's tools call the target's architecture and system, such as ``aarch64-linux-gnu``."""
    return _GNU_TRIPLES.get(target.architecture, f"{target.architecture}-linux-gnu")


def zig_triple(target: Target) -> str:
    """Returns what zig calls the target's architecture and system, with the C library that it brings."""
    if target.system == "windows":
        return f"{target.architecture}-windows-gnu"
    if target.system == "macos":
        return f"{target.architecture}-macos"
    if target.system == "android":
        return f"{target.architecture}-linux-musl"  # zig has no C library of Android's; static programs run there too
    return f"{gnu_triple(target)}.{_OLDEST_GLIBC}"


def _is_native(target: Target) -> bool:
    return target.architecture == this_machine().architecture and target.loads_code


def _candidates(target: Target) -> list[Linker | None]:
    cross = f"{gnu_triple(target)}-gcc"
    if target.linker == "zig":
        return [_zig(target)]
    if target.linker == "cc" or (target.linker == "auto" and _is_native(target)):
        return [_on_path(name) for name in _NATIVE_COMPILERS]
    if target.linker == "auto":
        return [_on_path(cross), _zig(target)]
    return [_on_path(target.linker)]


def _on_path(name: str) -> Linker | None:
    return Linker(name, (name,)) if shutil.which(name) else None


def _zig(target: Target) -> Linker | None:
    arguments = ("cc", "-target", zig_triple(target))
    if importlib.util.find_spec("ziglang") is not None:
        return Linker("zig", (sys.executable, "-m", "ziglang", *arguments))
    return Linker("zig", ("zig", *arguments)) if shutil.which("zig") else None


def link_library(
    linker: Linker, out: Path, objects: Sequence[Path], *, exports: Path, purpose: str
) -> None:
    """Links objects into a shared library that needs no other one: the same objects give the same bytes.

    Args:
        linker: C compiler for the target.
        out: File to write.
        objects: Object files, or C sources that the compiler makes into some.
        exports: Version script that names the symbols that others see.
        purpose: What is being done, for the message of an error.

    Raises:
        EdgeqError: If the linker fails.
    """
    # Processors without some instruction, such as 32-bit ARM without division, take functions of libgcc.
    flags = ["-shared", "-fPIC", "-nostdlib", "-s", f"-Wl,--version-script={exports}", "-Wl,--build-id=none"]
    if linker.name != "zig":  # whose linker does so by itself and does not know the words
        flags += ["-Wl,-z,noseparate-code", "-Wl,--hash-style=gnu", "-Wl,-z,norelro"]
    run_compiler(linker, [*flags, "-o", str(out), *map(str, objects), "-lgcc"], purpose=purpose)


def ffi_headers() -> Path:
    """Returns the folder of the C headers of apache-tvm-ffi.

    Raises:
        EdgeqError: If they are not installed.
    """
    # Found without importing tvm_ffi: that would load its libraries (and torch) for two header files.
    spec = importlib.util.find_spec("tvm_ffi")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        include = Path(folder) / "include"
        if (include / "tvm/ffi/c_api.h").is_file() and (include / "dlpack/dlpack.h").is_file():
            return include
    raise EdgeqError("the C headers of apache-tvm-ffi are missing; reinstall apache-tvm-ffi")


def run_compiler(linker: Linker, arguments: list[str], *, purpose: str) -> None:
    """Runs the compiler.

    Raises:
        EdgeqError: If it cannot be started, fails or hangs; the message holds its last line.
    """
    command = [*linker.command, *arguments]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeqError(f"could not {purpose}: {linker.name} did not run ({error})") from error
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no message"]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise EdgeqError(f"could not {purpose}: {linker.name} says: {reason}")
