"""The TVM runtime of a processor that no wheel is made for, built from the sources in the installed packages.

``runtime_source/README.md`` says which sources, and what stands in for the headers that the packages lack.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.targets.builtin.target import Target
from edgeq.targets.toolchain.linkers import Linker, gnu_triple, run_compiler

_HEADERS = Path(__file__).parent / "runtime_source" / "include"


@dataclasses.dataclass(frozen=True)
class _Library:
    """A library, its sources in a package's folder, and the libraries it is linked with."""

    name: str
    package: str
    folder: str
    sources: tuple[str, ...]
    needs: tuple[str, ...] = ()


# What loads model.so and runs the virtual machine on a CPU. Left out: remote calls, key and value caches of TVM's own,
# and comparing, hashing and copying of compiler data.
_FFI = (
    *("backtrace", "container", "custom_allocator", "dtype", "error", "function", "init_once", "object", "tensor"),
    *("extra/env_c_api", "extra/env_context", "extra/json_parser", "extra/json_writer", "extra/library_module"),
    *("extra/library_module_dynamic_lib", "extra/library_module_system_lib", "extra/module"),
)
_RUNTIME = (
    *("cpu_device_api", "device_api", "file_utils", "logging", "module", "tensor", "thread_pool"),
    *("threading_backend", "timer", "workspace_pool", "memory/memory_manager"),
    *("vm/builtin", "vm/bytecode", "vm/executable", "vm/vm"),
)
_LIBRARIES = (
    _Library("libtvm_ffi.so", "apache-tvm-ffi", "tvm_ffi", tuple(f"src/ffi/{name}.cc" for name in _FFI)),
    _Library(
        "libtvm_runtime.so",
        "apache-tvm",
        "tvm",
        tuple(f"src/runtime/{name}.cc" for name in _RUNTIME),
        needs=("libtvm_ffi.so",),
    ),
)
_PROCESSOR_FLAGS = {"armv7": ("-march=armv7-a+neon-vfpv4", "-mfloat-abi=hard", "-mthumb")}
_COMPILE_FLAGS = (
    *("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-w"),
    *("-DTVM_FFI_EXPORTS", "-DTVM_RUNTIME_EXPORTS", "-DTVM_FFI_USE_LIBBACKTRACE=0"),
)
# The C++ library is linked into both, and neither shows its symbols: a board needs nothing but the C library.
_LINK_FLAGS = (
    *("-shared", "-fPIC", "-s", "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"),
    *("-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,--no-undefined"),
)


def build_key() -> str:
    """Returns a digest of all that decides what is built, besides the versions of packages and compiler."""
    digest = hashlib.sha256(repr((_LIBRARIES, _PROCESSOR_FLAGS, _COMPILE_FLAGS, _LINK_FLAGS)).encode())
    for header in sorted(_HEADERS.rglob("*.h")):
        digest.update(f"\0{header.relative_to(_HEADERS).as_posix()}\0".encode() + header.read_bytes())
    return digest.hexdigest()[:16]


def find_cpp_compiler(target: Target) -> Linker:
    """Returns the C++ compiler for ``target``.

    Raises:
        EdgeqError: If it is not installed; the message says which package brings it.
    """
    name = f"{gnu_triple(target)}-g++"
    if shutil.which(name) is None:
        raise EdgeqError(
            f"no C++ compiler for {target.architecture} ({target.name}), which TVM's runtime is built with because no "
            f"wheel of it exists: install it with `{cpp_install_command(target)}`, then compile again"
        )
    return Linker(name, (name,))


def cpp_install_command(target: Target) -> str:
    """Returns the command that installs the C++ compiler for ``target``."""
    return f"apt-get install g++-{gnu_triple(target).replace('_', '-')}"


def build_runtime(target: Target, out: Path) -> None:
    """Builds the TVM runtime libraries for ``target``; takes minutes.

    Args:
        target: Processor to build for.
        out: Folder to write the libraries to.

    Raises:
        UnsupportedError: If no flags are known for the target's architecture.
        EdgeqError: If the compiler is missing or fails, or the packages do not hold the sources.
    """
    if target.architecture not in _PROCESSOR_FLAGS:
        raise UnsupportedError(
            f"TVM's runtime is built from source for {', '.join(_PROCESSOR_FLAGS)} only, but {target.name} is "
            f"{target.architecture}; name the wheel platform that has its libraries in `runtime_platform`"
        )
    compiler = find_cpp_compiler(target)
    processor = _PROCESSOR_FLAGS[target.architecture]
    with tempfile.TemporaryDirectory() as temporary, concurrent.futures.ThreadPoolExecutor(_workers()) as pool:
        compiled = []
        for library in _LIBRARIES:
            for source in library.sources:
                object_file = Path(temporary) / f"{library.name}.{source.replace('/', '.')}.o"
                # Messages of errors name source files; they must not name folders of this machine.
                names = [f"-ffile-prefix-map={_package_folder(owner)}={owner.folder}" for owner in _LIBRARIES]
                flags = [*_COMPILE_FLAGS, *processor, *names, *_include_flags(), "-c", str(_source(library, source))]
                job = pool.submit(
                    run_compiler, compiler, [*flags, "-o", str(object_file)], purpose=f"build {library.name}"
                )
                compiled.append((library, object_file, job))
        for _, _, job in compiled:
            job.result()
        for library in _LIBRARIES:
            objects = [str(path) for owner, path, _ in compiled if owner is library]
            needed = [str(out / name) for name in library.needs]
            name = f"-Wl,-soname,{library.name}"
            command = [*_LINK_FLAGS, *processor, name, "-o", str(out / library.name), *objects, *needed]
            run_compiler(compiler, [*command, "-ldl", "-lpthread"], purpose=f"link {library.name}")


def _workers() -> int:
    return len(os.sched_getaffinity(0))


def _package_folder(library: _Library) -> Path:
    return Path(str(importlib.metadata.distribution(library.package).locate_file(library.folder)))


def _source(library: _Library, source: str) -> Path:
    path = _package_folder(library) / source
    if not path.is_file():
        raise EdgeqError(f"the installed {library.package} holds no {source}; install the version of constraints.txt")
    return path


def _include_flags() -> list[str]:
    """Our headers, first; the sources name some as ``../support/x.h`` and ``../../support/x.h`` from where they lie."""
    ffi, runtime = (_package_folder(library) for library in _LIBRARIES)
    ours = (_HEADERS, _HEADERS / "tvm", _HEADERS / "tvm" / "support")
    theirs = (runtime / "include", ffi / "include", ffi / "src")
    return [f"-I{folder}" for folder in (*ours, *theirs)]
