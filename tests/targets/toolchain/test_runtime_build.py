"""TVM's runtime from the sources of the installed packages (running it: test_every_target_slow.py)."""

import dataclasses
import struct
import subprocess
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices import emulator
from edgeq.targets.toolchain import runtime_build, runtime_wheels
from edgeq.targets.toolchain.runtime_build import build_key, build_runtime, find_cpp_compiler

TARGET = load_target("cortex-a7")
EXECUTABLE = struct.pack("<Q", 0xD225DE2F4214151E)
"""What a program of TVM's virtual machine begins with."""

STREAMS = r"""
#include <cassert>
#include <string>
#include <tvm/support/io.h>
#include <tvm/support/serializer.h>
#include "support/bytes_io.h"
#include "support/utils.h"

using namespace tvm;

int main() {
  std::string bytes;
  support::BytesOutStream out(&bytes);
  out.Write(std::vector<std::string>{"ab", ""});
  out.Write(DLDataType{2, 32, 1});
  out.Write(DLDevice{kDLCPU, 3});
  out.Write<int64_t>(-2);
  const unsigned char expected[] = {2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 0, 0, 0, 0, 0, 0, 0, 0,
                                    2, 32, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255};
  assert(bytes == std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  support::BytesInStream in(bytes);
  std::vector<std::string> texts;
  DLDataType type;
  DLDevice device;
  int64_t number;
  assert(in.Read(&texts) && texts.size() == 2 && texts[0] == "ab");
  assert(in.Read(&type) && type.code == 2 && type.bits == 32 && type.lanes == 1);
  assert(in.Read(&device) && device.device_type == kDLCPU && device.device_id == 3);
  assert(in.Read(&number) && number == -2);
  assert(!in.Read(&number));
  std::string huge(8, '\x7f'), text;
  support::BytesInStream damaged(huge);
  assert(!damaged.Read(&text));
  support::BytesInStream again(huge);
  assert(!again.Read(&texts));
  assert(support::IsNumber("10") && !support::IsNumber("1x") && !support::IsNumber(""));
}
"""


class _FakeCompiler:
    """Stands for the cross compiler: writes what it is asked for, or fails."""

    def __init__(self, fails_on=None):
        self.fails_on, self.outputs = fails_on, []

    def __call__(self, compiler, arguments, *, purpose):
        out = Path(arguments[arguments.index("-o") + 1])
        if self.fails_on is not None and self.fails_on in out.name:
            raise EdgeqError(f"could not {purpose}: {compiler.name} says: error")
        if "-c" in arguments:
            assert Path(arguments[arguments.index("-c") + 1]).is_file()
        self.outputs.append(out.name)
        out.write_text(f"{purpose}: {' '.join(Path(argument).name for argument in arguments)}")


@pytest.fixture
def cross_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "arm-linux-gnueabihf-g++"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_the_libraries_are_built_once(cross_compiler, monkeypatch):
    fake = _FakeCompiler()
    monkeypatch.setattr(runtime_build, "run_compiler", fake)
    assert not runtime_wheels.is_available(TARGET)
    found = runtime_wheels.runtime_libraries(TARGET)
    assert set(found) == {"libtvm_ffi.so", "libtvm_runtime.so"}
    linked = found["libtvm_runtime.so"].read_text()
    assert "vm.vm.cc.o" in linked
    assert linked.count("libtvm_ffi.so") == 1
    built = len(fake.outputs)
    assert runtime_wheels.is_available(TARGET)
    assert runtime_wheels.runtime_libraries(TARGET) == found
    assert len(fake.outputs) == built
    found["libtvm_ffi.so"].write_text("damaged")
    assert not runtime_wheels.is_available(TARGET)
    assert "link" in runtime_wheels.runtime_libraries(TARGET)["libtvm_ffi.so"].read_text()


def test_a_failed_build_leaves_nothing(cross_compiler, monkeypatch):
    monkeypatch.setattr(runtime_build, "run_compiler", _FakeCompiler(fails_on="vm.executable.cc"))
    with pytest.raises(EdgeqError, match=r"could not build libtvm_runtime\.so: arm-linux-gnueabihf-g\+\+ says: error"):
        runtime_wheels.runtime_libraries(TARGET)
    assert not runtime_wheels.is_available(TARGET)


def test_a_missing_compiler_is_a_sentence_with_the_package(cross_compiler, tmp_path):
    cross_compiler.unlink()
    with pytest.raises(EdgeqError, match=r"no C\+\+ compiler for armv7 .*`apt-get install g\+\+-arm-linux-gnueabihf`"):
        build_runtime(TARGET, tmp_path)


def test_other_architectures_have_wheels(tmp_path):
    other = dataclasses.replace(load_target("cortex-a72"), runtime_platform="source")
    with pytest.raises(UnsupportedError, match="for armv7 only, but cortex-a72 is aarch64"):
        build_runtime(other, tmp_path)


def test_missing_sources_are_a_sentence(cross_compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime_build, "_package_folder", lambda library: tmp_path)
    with pytest.raises(EdgeqError, match=r"the installed apache-tvm-ffi holds no src/ffi/backtrace\.cc"):
        build_runtime(TARGET, tmp_path)


def test_another_header_is_another_build(monkeypatch, tmp_path):
    before = build_key()
    assert before == build_key()
    (tmp_path / "io.h").write_text("")
    monkeypatch.setattr(runtime_build, "_HEADERS", tmp_path)
    assert build_key() != before


@pytest.mark.slow
@pytest.mark.needs("armhf-emulator", "armhf-compiler")
def test_what_stands_in_for_tvms_headers_reads_and_writes_its_format(tmp_path):
    """In a 32-bit program, under the emulator: lengths have 64 bits nevertheless."""
    source, program = tmp_path / "streams.cc", tmp_path / "streams"
    source.write_text(STREAMS)
    library = runtime_wheels.runtime_libraries(TARGET)["libtvm_ffi.so"]
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wno-psabi", *runtime_build._include_flags()]
    command = [find_cpp_compiler(TARGET).name, *flags, "-o", str(program), str(source), str(library)]
    subprocess.run(command, check=True, timeout=300)
    settings = TARGET.emulator
    libraries = f"LD_LIBRARY_PATH={library.parent}"
    command = [settings.program, *settings.arguments, "-L", settings.sysroot, "-E", libraries, str(program)]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.needs("armhf-emulator", "armhf-compiler")
def test_an_exception_of_the_runtime_reaches_the_runner_as_a_sentence(make_bundle, copy_of):
    """It is thrown in one library and reported by the other, each of which has a C++ library of its own."""
    bundle = copy_of(make_bundle("cortex-a7"))
    assert emulator.self_test(bundle).ok
    code = (bundle / "model.so").read_bytes()
    assert code.count(EXECUTABLE) == 1
    (bundle / "model.so").write_bytes(code.replace(EXECUTABLE, bytes(8)))
    settings = TARGET.emulator
    command = [settings.program, *settings.arguments, "-L", settings.sysroot, str(bundle / "edgeq-run"), str(bundle)]
    result = subprocess.run(
        [*command, "--self-test", "--no-verify"], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert "TVM failed to load model.so" in result.stderr
    assert "Invalid VM file format" in result.stderr
