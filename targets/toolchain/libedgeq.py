"""Builds libedgeq, the C library that runs bundles, and edgeq-run, the program on top of it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.files import cache_folder, made_of, new_folder
from edgeq.formats.json_file import read_json_object
from edgeq.reading import sha256
from edgeq.targets.builtin.target import Target
from edgeq.targets.toolchain.linkers import Linker, run_compiler

LIBEDGEQ = Path(__file__).parents[1] / "libedgeq"
"""The sources: ``include``, ``library`` and ``program``."""
LIBRARY_NAME, PROGRAM_NAME = "libedgeq.so", "edgeq-run"
_DIGESTS = "sha256.json"
_STATIC_TRIPLES = {
    "x86_64": "x86_64-linux-musl",
    "aarch64": "aarch64-linux-musl",
    "armv7": "arm-linux-musleabihf",
    "riscv64": "riscv64-linux-musl",
}

COMPILE_FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-D_FILE_OFFSET_BITS=64",  # or a 32-bit machine could not even say that a file is too large
    "-g0",  # or zig would write what the linker leaves out again
    "-ffp-contract=off",  # sampling.c rounds after every operation
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wall",
    "-Wextra",
    f"-I{LIBEDGEQ / 'include'}",
)
_FAST = (
    *("run", "pool", "vectors", "sampling", "numerics"),
    *("crc32", "checked_file", "sha256", "sha256_blocks", "sha256_lanes"),
    *("json", "plan", "number_text"),
)
"""Files whose loops take time that one can measure; the others are compiled to be small."""
_LINK_FLAGS = ("-s", "-Wl,--build-id=none", "-Wl,--gc-sections")
_SYSTEM_LIBRARIES = ("-lm", "-lpthread")
_SMALL = "program/small"
"""Sources that take the place of large functions of the C library in a static program."""
_STATIC_FLAGS = ("-static", "-Wl,-z,norelro", "-T", str(LIBEDGEQ / _SMALL / "no_unwind_tables.ld"))


def build_library(linker: Linker, out: Path) -> None:
    """Builds ``libedgeq.so``: nothing is compiled again that this user's cache holds.

    Args:
        linker: C compiler for the target.
        out: File to write.

    Raises:
        EdgeqError: If the compiler fails.
    """
    shutil.copyfile(_cached(linker, LIBRARY_NAME), out)


def build_runner(
    linker: Linker, out: Path, *, target: Target | None = None, extra_flags: tuple[str, ...] = ()
) -> None:
    """Builds ``edgeq-run``, which holds the library and needs none but the C library.

    For a target that zig brings a C library for, it is a static program: that starts in less time than one that is
    linked when it starts, and runs where the C library is another or an older one.

    Args:
        linker: C compiler for the target.
        out: File to write.
        target: What it is built for; None builds what the linker builds.
        extra_flags: Flags of the compiler, for tests; with them the cache is not used.

    Raises:
        EdgeqError: If the compiler fails.
    """
    if extra_flags:
        sources = [*_sources("library"), *_sources("program")]
        _compile(linker, ["-O2", *extra_flags, "-pie", *sources], out, purpose="build edgeq-run")
        return
    if target is not None and _has_static_linker(target):
        linker = _static_linker(target)
    shutil.copy(_cached(linker, PROGRAM_NAME), out)


def build_static_runner(target: Target, out: Path) -> None:
    """Builds ``edgeq-run`` as one static program for any Linux of the target's architecture, whatever its C library.

    Args:
        target: Gives the architecture.
        out: File to write.

    Raises:
        UnsupportedError: If no static C library is known for the architecture.
        EdgeqError: If zig, which brings that library, is not installed or fails.
    """
    shutil.copy(_cached(_static_linker(target), PROGRAM_NAME), out)


def _has_static_linker(target: Target) -> bool:
    is_linux = "linux" in target.triple
    return is_linux and target.architecture in _STATIC_TRIPLES and importlib.util.find_spec("ziglang") is not None


def _static_linker(target: Target) -> Linker:
    if target.architecture not in _STATIC_TRIPLES:
        raise UnsupportedError(
            f"no static C library is known for {target.architecture} ({target.name}); architectures that have one: "
            f"{', '.join(_STATIC_TRIPLES)}"
        )
    if importlib.util.find_spec("ziglang") is None:
        raise EdgeqError("a static program needs zig, which brings its C library: run `pip install ziglang`")
    return Linker("zig", (sys.executable, "-m", "ziglang", "cc", "-target", _STATIC_TRIPLES[target.architecture]))


def _sources(part: str) -> list[str]:
    return [str(path) for path in sorted((LIBEDGEQ / part).glob("*.c"))]


def _compile(linker: Linker, arguments: list[str], out: Path, *, purpose: str) -> None:
    command = [*COMPILE_FLAGS, *_LINK_FLAGS, *arguments, "-o", str(out), *_SYSTEM_LIBRARIES]
    run_compiler(linker, command, purpose=purpose)


def _cached(linker: Linker, name: str) -> Path:
    """What is built with this compiler from these sources: the library or the program."""
    folder = cache_folder() / "libedgeq" / f"{_key(linker)}-{Path(name).stem}"
    if not _is_intact(folder, name):
        with _alone(folder):
            if not _is_intact(folder, name):
                with new_folder(folder, made_of("compile", name, _DIGESTS)) as out:
                    _build(linker, name, out)
                    table = json.dumps({name: sha256(out / name)}, indent=1)
                    (out / _DIGESTS).write_text(table + "\n", encoding="utf-8")
    return folder / name


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for another process that builds the same."""
    import fcntl  # Windows has none

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(linker: Linker, name: str, out: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        library = _objects(linker, _sources("library"), Path(temporary) / "library")
        if name == LIBRARY_NAME:
            _compile(linker, ["-shared", *library], out / name, purpose="build libedgeq")
            return
        program = _objects(linker, _sources("program"), Path(temporary) / "program")
        if linker.command[-1] in _STATIC_TRIPLES.values():
            # At a fixed place; asked for -pie, zig's compiler would look for a dynamic linker.
            small = _objects(linker, _sources(_SMALL), Path(temporary) / "small", flags=("-fno-builtin",))
            arguments = [*_STATIC_FLAGS, *program, *library, *small]
        else:
            arguments = ["-pie", *program, *library]
        _compile(linker, arguments, out / name, purpose="build edgeq-run")
    (out / name).chmod(0o755)


def _objects(linker: Linker, sources: list[str], folder: Path, *, flags: tuple[str, ...] = ()) -> list[str]:
    folder.mkdir()
    objects = [str(folder / f"{Path(source).stem}.o") for source in sources]

    def compile_one(source: str, out: str) -> None:
        level = "-O2" if Path(source).stem in _FAST else "-Os"
        run_compiler(linker, [*COMPILE_FLAGS, level, *flags, "-c", source, "-o", out], purpose="build libedgeq")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    return objects


def _key(linker: Linker) -> str:
    flags = (COMPILE_FLAGS[:-1], _FAST, _LINK_FLAGS, _STATIC_FLAGS[:-1])
    digest = hashlib.sha256(repr((_compiler(linker), linker.version, flags)).encode())
    files = (path for part in ("include", "library", "program") for path in (LIBEDGEQ / part).rglob("*"))
    for path in sorted(path for path in files if path.suffix in (".c", ".h", ".ld")):
        digest.update(f"\0{path.relative_to(LIBEDGEQ).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compiler(linker: Linker) -> tuple[str, ...]:
    """Returns a command; zig's with its release in place of the Python that holds it: environments share the cache."""
    if linker.command[1:3] == ("-m", "ziglang"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return (f"ziglang {importlib.metadata.version('ziglang')}", *linker.command[3:])
    return linker.command


def _is_intact(folder: Path, name: str) -> bool:
    try:
        return bool(read_json_object(folder / _DIGESTS)[name] == sha256(folder / name))
    except (EdgeqError, KeyError):
        return False
