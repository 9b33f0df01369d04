import dataclasses
import importlib.metadata
import subprocess
import sys
import threading

import pytest

from edgeq.errors import EdgeqError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain import libedgeq
from edgeq.targets.toolchain.libedgeq import build_runner
from edgeq.targets.toolchain.linkers import Linker, find_linker, install_command, run_compiler

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
FOREIGN = "cortex-a72" if this_machine().architecture == "x86_64" else "x86-64-v3"


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ziglang", None)  # what Python takes for not installed


def _program(folder, name):
    path = folder / name
    path.write_text("#!/bin/sh\necho fake 1.0\n")
    path.chmod(0o755)


def test_zig_builds_the_runner(tmp_path):
    """It has no library for GCC's ``__builtin_cpu_supports``, without which the runner did not link on x86-64."""
    linker = find_linker(dataclasses.replace(load_target(NATIVE), linker="zig"))
    build_runner(linker, tmp_path / "edgeq-run", extra_flags=("-Werror", "-O1"))
    result = subprocess.run([tmp_path / "edgeq-run", "--help"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: edgeq-run BUNDLE")


def test_a_missing_cross_compiler_is_a_sentence_with_the_command(nothing_installed):
    with pytest.raises(EdgeqError, match=r"no C compiler for .*apt-get install gcc-.*pip install ziglang"):
        find_linker(load_target(FOREIGN))
    with pytest.raises(EdgeqError, match="apt-get install gcc libc6-dev"):
        find_linker(load_target("host"))


def test_the_cross_compiler_comes_before_zig(nothing_installed, tmp_path):
    target = load_target(FOREIGN)
    _program(tmp_path, "zig")
    assert find_linker(target).command[:2] == ("zig", "cc")
    assert find_linker(target).command[-1].startswith(f"{target.architecture}-linux-gnu.2.")
    name = f"{target.architecture}-linux-gnu-gcc"
    _program(tmp_path, name)
    assert find_linker(target) == Linker(name, (name,))
    assert find_linker(dataclasses.replace(target, linker="zig")).name == "zig"


def test_32_bit_arm_has_other_names(nothing_installed, tmp_path):
    target = load_target("cortex-a7")
    debian = "apt-get install gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"
    assert install_command(target) == f"{debian}` or `pip install ziglang"
    _program(tmp_path, "zig")
    assert find_linker(target).command == ("zig", "cc", "-target", "arm-linux-gnueabihf.2.28")
    _program(tmp_path, "arm-linux-gnueabihf-gcc")
    assert find_linker(target).name == "arm-linux-gnueabihf-gcc"


def test_a_target_may_insist_on_one_linker(nothing_installed, tmp_path):
    target = dataclasses.replace(load_target("cortex-a72"), linker="zig")
    _program(tmp_path, "aarch64-linux-gnu-gcc")
    with pytest.raises(EdgeqError, match="`pip install ziglang`"):
        find_linker(target)
    assert install_command(target) == "pip install ziglang"


def test_what_the_compiler_says_is_passed_on(tmp_path):
    source = tmp_path / "broken.c"
    source.write_text("int main(void) { return missing; }\n")
    linker = find_linker(load_target("host"))
    with pytest.raises(EdgeqError, match=r"could not try: .* says: .*broken\.c.*error.*missing"):
        run_compiler(linker, [str(source), "-o", str(tmp_path / "out")], purpose="try")
    with pytest.raises(EdgeqError, match="nosuchcc did not run"):
        run_compiler(Linker("nosuchcc", ("nosuchcc",)), [], purpose="try")
    assert Linker("nosuchcc", ("nosuchcc",)).version == "unknown"


def test_asking_compilers_for_their_versions_leaves_no_file(tmp_path, monkeypatch):
    """zig answers for macOS with a file ``a.o`` where it was started."""
    monkeypatch.chdir(tmp_path)
    for triple in ("aarch64-macos", "x86_64-windows-gnu", "aarch64-linux-musl"):
        linker = Linker("zig", (sys.executable, "-m", "ziglang", "cc", "-target", triple))
        assert linker.version.startswith("clang version")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_of_another_path_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    linker = Linker("somecc", ("somecc",))
    assert linker.version == "unknown"
    _program(tmp_path, "somecc")
    assert linker.version == "fake 1.0"


def test_environments_with_one_release_of_zig_share_what_was_built(monkeypatch):
    monkeypatch.setattr(Linker, "version", "clang 1")
    here, other_target = (libedgeq._static_linker(load_target(name)) for name in ("cortex-a72", "cortex-a7"))
    elsewhere = Linker("zig", ("/another/bin/python", *here.command[1:]))
    found = libedgeq._key(here)
    assert libedgeq._key(elsewhere) == found
    assert libedgeq._key(other_target) != found
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "another release")
    assert libedgeq._key(here) != found


def test_two_that_need_the_same_library_build_it_once(tmp_path, monkeypatch):
    """The second asks for it while the first builds."""
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    asked, building, built = threading.Semaphore(0), threading.Event(), []
    is_intact = libedgeq._is_intact

    def ask(folder, name):
        found = is_intact(folder, name)
        asked.release()
        return found

    def build(linker, name, out):
        built.append((linker, name))
        building.set()
        for _ in range(3):  # twice by the first, without and with the lock, and once by the second
            assert asked.acquire(timeout=60)
        (out / name).write_bytes(b"built")

    monkeypatch.setattr(libedgeq, "_is_intact", ask)
    monkeypatch.setattr(libedgeq, "_build", build)
    linker = find_linker(load_target("host"))
    threads = [
        threading.Thread(target=libedgeq.build_library, args=(linker, tmp_path / f"{name}.so")) for name in "ab"
    ]
    threads[0].start()
    assert building.wait(timeout=60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert built == [(linker, libedgeq.LIBRARY_NAME)]
    assert [(tmp_path / f"{name}.so").read_bytes() for name in "ab"] == [b"built"] * 2
