"""A model as sources: what comes out builds with every compiler, for every system, and gives the bits of a bundle."""

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.packing import pack_bundle, unpack_bundle
from edgeq.targets.bundle.sources import MODEL_FILE, compile_sources
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.toolchain.linkers import Linker, find_linker

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
FLAGS = ["-std=c11", "-O1", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-ffp-contract=off", *WARNINGS]
ZIG = (sys.executable, "-m", "ziglang", "cc", "-target")
PROMPT = ["--text", "the quick cat", "--generate", "12", "--json"]


@pytest.fixture(scope="session")
def sources(gpt2_onnx, gpt2_bundle, make_once):
    """Returns a function that compiles a GPT-2 into sources for a target, by name; each only once a run."""

    def make(name):
        def fill(folder):
            compile_sources(
                gpt2_onnx, folder / "model", target=load_target(name), context=150, host_bundle=gpt2_bundle
            )

        return make_once(f"sources-{name}", fill) / "model"

    return make


def _compile(folder, compiler, out, *options, program=True):
    """The command of the folder's README, for edgeq-run or the example."""
    main = sorted((folder / "libedgeq" / "program").glob("*.c")) if program else [folder / "example.c"]
    library, objects = sorted((folder / "libedgeq" / "library").glob("*.c")), sorted(folder.glob("objects/*/*.o"))
    places = [f"-I{folder}", f"-I{folder / 'libedgeq' / 'include'}"]
    files = [*library, folder / "kernels.c", *objects, *main]
    command = [*compiler, *FLAGS, *options, *places, *files, "-lm", "-lpthread", "-o", out]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return out


@pytest.fixture(scope="session")
def native_program(sources, make_once):
    """edgeq-run with the kernels for this machine linked in."""

    def fill(folder):
        _compile(sources(NATIVE), find_linker(load_target("host")).command, folder / "edgeq-run")

    return make_once("sources-native", fill) / "edgeq-run"


def _run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


def _without_times(line):
    return {key: value for key, value in json.loads(line).items() if "second" not in key}


def _expected(bundle):
    return _without_times(_run(bundle / "edgeq-run", bundle, *PROMPT).stdout)


def test_a_program_of_sources_gives_the_bits_of_a_bundle(sources, native_program, gpt2_bundle):
    model = sources(NATIVE) / MODEL_FILE
    result = _run(native_program, model, "--self-test")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == _run(gpt2_bundle / "edgeq-run", gpt2_bundle, "--self-test").stdout
    assert _without_times(_run(native_program, model, *PROMPT).stdout) == _expected(gpt2_bundle)


def test_the_same_model_gives_the_same_folder(gpt2_onnx, gpt2_bundle, sources, tmp_path):
    target = load_target(NATIVE)
    again = compile_sources(gpt2_onnx, tmp_path / "again", target=target, context=150, host_bundle=gpt2_bundle)
    first = sources(NATIVE)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (again / name).read_bytes()] == []
    # A second time it replaces what it wrote, and nothing else.
    compile_sources(gpt2_onnx, again, target=target, context=150, host_bundle=gpt2_bundle)
    (again / "mine.c").touch()
    with pytest.raises(UsageError, match=r"mine\.c was not written by"):
        compile_sources(gpt2_onnx, again, target=target, context=150, host_bundle=gpt2_bundle)


def test_kernels_of_another_model_are_refused(sources, native_program, gpt2_bundle, tmp_path):
    folder = unpack_bundle(sources(NATIVE) / MODEL_FILE, tmp_path / "data")
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, linked_kernels="0" * 32))
    result = _run(native_program, pack_bundle(folder, tmp_path / "other.edgeq"), "--self-test")
    assert result.returncode == 2
    assert "belongs to other kernels than those of this program" in result.stderr
    # A bundle with code of its own has no kernels in this program either.
    assert _run(native_program, gpt2_bundle, "--self-test").returncode == 1


def test_a_model_without_code_is_refused_where_no_kernels_are_linked_in(sources, gpt2_bundle, tmp_path):
    result = _run(gpt2_bundle / "edgeq-run", sources(NATIVE) / MODEL_FILE, "--self-test")
    assert result.returncode == 2
    assert "has no code: its kernels are linked into the program" in result.stderr
    with pytest.raises(FormatError, match=r"holds no lib/libedgeq\.so"):
        edgeq.load(unpack_bundle(sources(NATIVE) / MODEL_FILE, tmp_path / "data"))


def test_systems_that_load_no_code_have_no_bundles(gpt2_onnx, tmp_path):
    for name in ("windows-x86-64", "macos-arm64", "android-arm64"):
        with pytest.raises(UsageError, match=f"programs for {name} load no code .*--form sources"):
            edgeq.compile_bundle(gpt2_onnx, tmp_path / "out", target=load_target(name))


@pytest.mark.slow
@pytest.mark.needs("cmake")
@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
def test_the_folder_builds_with_cmake_and_each_compiler(sources, gpt2_bundle, needs, tmp_path, compiler):
    folder, program = sources(NATIVE), compiler
    if compiler == "clang":
        needs("clang")
    if compiler == "zig":
        program = tmp_path / "zig-cc"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ziglang cc "$@"\n')
        program.chmod(0o755)
    flags = f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}"
    configured = _run("cmake", "-S", folder, "-B", tmp_path / "build", f"-DCMAKE_C_COMPILER={program}", flags)
    assert configured.returncode == 0, configured.stderr
    built = _run("cmake", "--build", tmp_path / "build")
    assert built.returncode == 0, built.stdout + built.stderr
    found = _run(tmp_path / "build" / "edgeq-run", folder / MODEL_FILE, *PROMPT)
    assert _without_times(found.stdout) == _expected(gpt2_bundle)
    example = _run(tmp_path / "build" / "example", folder / MODEL_FILE, "the quick cat")
    assert (example.returncode, example.stderr) == (0, "3962 values are right in every bit\n")
    plain = _run(gpt2_bundle / "edgeq-run", gpt2_bundle, "--text", "the quick cat", "--generate", "20")
    assert example.stdout == plain.stdout


def _chroot():
    """How a program is started in another root, or why it cannot be."""
    if os.geteuid() == 0:
        return ["chroot"], ""
    command = ["unshare", "--user", "--map-root-user", "chroot"]
    if shutil.which("unshare") and _run(*command, "/", "true").returncode == 0:
        return command, ""
    return [], "another root needs the rights of root, or user namespaces, which this system does not allow"


@pytest.mark.slow
def test_a_static_program_and_library_run_where_no_c_library_is(sources, gpt2_bundle, tmp_path):
    """The root holds the program and the model, and nothing else: zig brings musl."""
    chroot, reason = _chroot()
    if reason:
        pytest.skip(reason)
    folder, root = sources(NATIVE), tmp_path / "root"
    root.mkdir()
    triple = f"{this_machine().architecture}-linux-musl"
    _compile(folder, [*ZIG, triple], root / "example", "-static", program=False)
    _compile(folder, [*ZIG, triple], root / "edgeq-run", "-static")
    shutil.copy(folder / MODEL_FILE, root / "model.edgeq")
    assert sorted(path.name for path in root.rglob("*")) == ["edgeq-run", "example", "model.edgeq"]
    example = _run(*chroot, root, "/example", "/model.edgeq", "the quick cat")
    assert (example.returncode, example.stderr) == (0, "3962 values are right in every bit\n")
    found = _run(*chroot, root, "/edgeq-run", "/model.edgeq", *PROMPT)
    assert _without_times(found.stdout) == _expected(gpt2_bundle)


def _imports(program):
    """Names of the libraries that a program for Windows takes functions from."""
    data = program.read_bytes()
    (head,) = struct.unpack_from("<I", data, 0x3C)
    assert data[head : head + 4] == b"PE\0\0"
    sections, optional_size = struct.unpack_from("<H12xH", data, head + 6)
    (table,) = struct.unpack_from("<I", data, head + 24 + 120)  # the second directory of PE32+

    def at(address):
        for number in range(sections):
            size, start, _, place = struct.unpack_from("<4I", data, head + 24 + optional_size + 40 * number + 8)
            if start <= address < start + size:
                return address - start + place
        raise AssertionError(f"no section holds {address:#x}")

    names, entry = set(), at(table)
    while (name := struct.unpack_from("<12xI", data, entry)[0]) != 0:
        names.add(data[at(name) : data.index(b"\0", at(name))].decode().lower())
        entry += 20
    return names


@pytest.fixture(scope="session")
def windows_program(sources, make_once):
    def fill(folder):
        zig = find_linker(load_target("windows-x86-64"))
        _compile(sources("windows-x86-64"), zig.command, folder / "edgeq-run.exe")

    return make_once("sources-windows", fill) / "edgeq-run.exe"


@pytest.mark.slow
def test_a_program_for_windows_needs_only_what_windows_has(windows_program):
    found = _imports(windows_program)
    assert "kernel32.dll" in found
    assert {name for name in found if not name.startswith("api-ms-win-crt-")} <= {"kernel32.dll", "shell32.dll"}


@pytest.mark.slow
@pytest.mark.needs("wine")
def test_a_program_for_windows_gives_the_bits_of_a_bundle(sources, windows_program, gpt2_bundle, tmp_path):
    model = sources("windows-x86-64") / MODEL_FILE
    wine = shutil.which("wine64") or "/usr/lib/wine/wine64"
    surroundings = {**os.environ, "WINEPREFIX": str(tmp_path / "wine"), "WINEDEBUG": "-all"}

    def run(*arguments):
        return _run(wine, windows_program, *arguments, env=surroundings, timeout=300)

    expected = _run(gpt2_bundle / "edgeq-run", gpt2_bundle, "--self-test").stdout
    kinds = [kind for kind in load_target("windows-x86-64").kinds if not this_machine().lacks(kind.cpu_flags)]
    assert kinds
    for kind in kinds:
        result = run(model, "--self-test", "--variant", kind.name)
        assert (result.returncode, result.stdout) == (0, expected), result.stderr
    assert _without_times(run(model, *PROMPT).stdout) == _expected(gpt2_bundle)
    # Names of files are UTF-8, also those that its code page lacks.
    strange = shutil.copy(model, tmp_path / "модель 語.edgeq")
    assert run(strange, "--self-test").returncode == 0
    missing = run(tmp_path / "none.edgeq", "--self-test")
    assert (missing.returncode, missing.stderr.count("no bundle folder at")) == (2, 1)
    assert "Is a directory" in run(model, "--ids", tmp_path, "--generate", "3").stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "processor"), [("macos-arm64", 0x0100000C), ("macos-x86-64", 0x01000007)])
def test_a_program_for_macos_is_built_and_linked(sources, tmp_path, name, processor):
    """Nothing here runs it."""
    program = _compile(sources(name), find_linker(load_target(name)).command, tmp_path / "edgeq-run")
    data = program.read_bytes()
    magic, found, _, kind, commands = struct.unpack_from("<5I", data)
    assert (magic, found, kind) == (0xFEEDFACF, processor, 2)  # a 64-bit executable
    libraries, at = set(), 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command & 0xFFFF == 0xC:  # a library that it needs
            (offset,) = struct.unpack_from("<I", data, at + 8)
            libraries.add(data[at + offset : data.index(b"\0", at + offset)].decode())
        at += size
    assert libraries == {"/usr/lib/libSystem.B.dylib"}


@pytest.mark.slow
@pytest.mark.needs("arm64-emulator")
def test_kernels_for_android_give_the_bits_of_a_bundle(sources, gpt2_bundle, tmp_path):
    """With musl in place of Android's C library, which zig does not bring; the NDK's program has the same objects."""
    target = load_target("android-arm64")
    program = _compile(sources("android-arm64"), find_linker(target).command, tmp_path / "edgeq-run", "-static")
    for core in ("cortex-a53", "max"):
        command = ["qemu-aarch64-static", "-cpu", core, program, sources("android-arm64") / MODEL_FILE]
        result = _run(*command, "--self-test")
        assert (result.returncode, result.stderr) == (0, "")
        assert _without_times(_run(*command, *PROMPT).stdout) == _expected(gpt2_bundle)


def test_zig_knows_every_system():
    for name, triple in [
        ("windows-x86-64", "x86_64-windows-gnu"), ("macos-arm64", "aarch64-macos"), ("macos-x86-64", "x86_64-macos"),
        ("android-arm64", "aarch64-linux-musl"), ("riscv64", "riscv64-linux-gnu.2.28"),
    ]:  # fmt: skip
        linker = find_linker(dataclasses.replace(load_target(name), linker="zig"))
        assert isinstance(linker, Linker)
        assert Path(linker.command[0]).exists()
        assert linker.command[-1] == triple
