"""Makes what the counts need: an AArch64 system with Python, the peers for it, and edgeq's bundles. Nothing is counted.

python -m benchmarks.arm.prepare TOOLS --models MODELS

It needs Debian or a relative with ``dpkg --add-architecture arm64`` and ``apt-get update`` done, the packages
``g++-aarch64-linux-gnu``, ``cmake``, ``ninja-build``, ``qemu-user`` and LLVM, and the files that
``python -m benchmarks.speed.run --prepare`` made in MODELS for MiniLM and GPT-2 small. What is there is not made again.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.arm.programs import CORES, WORKS
from benchmarks.speed.prepare import bundle
from edgeq.errors import EdgeqError

_PACKAGES = (
    "python{0}-minimal", "libpython{0}-minimal", "libpython{0}-stdlib", "libexpat1", "zlib1g", "libffi8", "libssl3",
    "libstdc++6", "libgcc-s1", "libc6", "libgomp1", "libbz2-1.0", "liblzma5", "libsqlite3-0",
)  # fmt: skip
_WHEELS = ("numpy==2.4.6", "onnxruntime==1.23.2", "ctranslate2==4.8.5")
"""ONNX Runtime 1.31.1 ends with a segmentation fault when it is imported under qemu 7.2."""
_LLAMA = "llama-cpp-python==0.3.36"
_FOR_LLAMA = ("jinja2", "diskcache", "typing-extensions")
"""What its Python package imports; the peer makes no other use of it."""
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_BUILD = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF", "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
)  # fmt: skip


def main() -> int:
    """Makes everything that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path, help="folder for system, peers and llama.cpp")
    parser.add_argument("--models", type=Path, default=Path("bench-output/models"), help="of benchmarks.speed")
    parser.add_argument("--python", default="3.11", help="the Python of this Debian release (default: 3.11)")
    options = parser.parse_args()
    tools = options.tools.absolute()
    tools.mkdir(parents=True, exist_ok=True)
    _made(tools / "sysroot", lambda folder: _system(folder, options.python))
    _made(tools / "wheels", lambda folder: _wheels(folder, options.python))
    _made(tools / "llama.cpp", lambda folder: _llama_source(folder, tools / "wheels"))
    for processor in sorted(set(CORES.values())):
        _made(tools / "llama" / processor, functools.partial(_llama, sources=tools / "llama.cpp", processor=processor))
    for model, recipe in sorted({(work.model, recipe) for work in WORKS for recipe in work.recipes}):
        for core in CORES:
            print(f"bundle of {model}, {recipe}, {core}", flush=True)
            bundle(model, recipe, target=core, root=options.models)
    return 0


def _made(folder: Path, make: Callable[[Path], None]) -> None:
    """Has a folder made under another name, unless it is there."""
    if folder.is_dir():
        return
    print(folder, flush=True)
    unfinished = folder.with_name(f"{folder.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    make(unfinished)
    unfinished.rename(folder)


def _run(command: Sequence[str | Path], *, folder: Path | None = None) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"it ended with code {result.returncode}"])[-1]
        raise EdgeqError(f"{' '.join(map(str, command[:3]))} failed: {reason}")


def _system(folder: Path, python: str) -> None:
    packages = folder / "packages"
    packages.mkdir()
    _run(["apt-get", "download", *(f"{name.format(python)}:arm64" for name in _PACKAGES)], folder=packages)
    for file in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", file, folder])
    shutil.rmtree(packages)


def _wheels(folder: Path, python: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--only-binary=:all:"]
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    _run([*pip, *platforms, "--python-version", python, *_WHEELS, *_FOR_LLAMA])


def _llama_source(folder: Path, wheels: Path) -> None:
    """Unpacks llama.cpp, and puts its Python package, which has no compiled part of its own, beside the others."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    _run([*pip, "--dest", folder, _LLAMA])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    archive.unlink()
    (source,) = folder.iterdir()
    shutil.copytree(source / "llama_cpp", wheels / "llama_cpp", dirs_exist_ok=True)


def _llama(folder: Path, *, sources: Path, processor: str) -> None:
    (source,) = sources.iterdir()
    build = folder / "build"
    _run(["cmake", "-G", "Ninja", "-S", source / "vendor" / "llama.cpp", "-B", build, *_BUILD,
          f"-DGGML_CPU_ARM_ARCH={processor}"])  # fmt: skip
    _run(["ninja", "-C", build, "llama"])
    for library in (build / "bin").glob("lib*.so*"):
        shutil.copy2(library, folder / library.name, follow_symlinks=False)
    shutil.rmtree(build)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeqError as error:
        sys.exit(f"prepare: {error}")
