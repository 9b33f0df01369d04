"""Code files: what they need, and that the same model gives the same bytes."""

from __future__ import annotations

import dataclasses
import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError, FormatError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler import linking
from edgeq.targets.compiler.linking import GIVEN, link_code
from edgeq.targets.runtime.manifest import read_manifest
from edgeq.targets.toolchain.elf import undefined_symbols
from edgeq.targets.toolchain.linkers import find_linker


@pytest.mark.parametrize(
    "name", ["host", "cortex-a72", pytest.param("cortex-a7", marks=pytest.mark.needs("armhf-compiler"))]
)
def test_kernels_need_next_to_nothing(make_bundle, name):
    bundle = make_bundle(name)
    (target,) = read_manifest(bundle).targets
    assert undefined_symbols(bundle / target.code) <= {"memcpy", "memset", "TVMFFIErrorSetRaisedFromCStrParts"}


@pytest.mark.parametrize("name", ["cortex-a72", "x86-64-v3"])
def test_zig_links_kernels_that_start_no_threads(compile_tiny, tmp_path, name):
    """Its linker refuses a list of exports with a name that no kernel has."""
    target = load_target(name)
    linker = find_linker(dataclasses.replace(target, linker="zig"))
    assert linker.name == "zig"
    link_code(compile_tiny(target), tmp_path / "code.so", linker)
    assert undefined_symbols(tmp_path / "code.so") <= GIVEN


def test_what_no_runtime_gives_is_refused(compile_tiny, tmp_path, monkeypatch):
    host = load_target("host")
    monkeypatch.setattr(linking, "GIVEN", GIVEN - {"TVMFFIErrorSetRaisedFromCStrParts"})
    with pytest.raises(EdgeqError, match="the kernels need TVMFFIErrorSetRaisedFromCStrParts, which no runtime gives"):
        link_code(compile_tiny(host), tmp_path / "code.so", find_linker(host))


def test_a_file_that_is_no_library_is_a_sentence(tmp_path):
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF\x02\x02" + bytes(60)):
        (tmp_path / "x.so").write_bytes(data)
        with pytest.raises(FormatError, match=r"x\.so is no little-endian ELF file"):
            undefined_symbols(tmp_path / "x.so")
    (tmp_path / "x.so").write_bytes(b"\x7fELF\x02\x01" + bytes(10))
    with pytest.raises(FormatError, match=r"x\.so is a damaged ELF file"):
        undefined_symbols(tmp_path / "x.so")


def test_two_processes_with_other_addresses_write_the_same_files(gpt2_onnx: Path, tmp_path: Path) -> None:
    """Hashes and addresses differ from process to process, and so does what was compiled before; no byte may."""
    code = (
        "import sys, edgeq\n"
        "from edgeq.targets.builtin.target import load_target\n"
        "for out, context in zip(sys.argv[2:], (30, 20)[4 - len(sys.argv):]):\n"
        "    edgeq.compile_bundle(sys.argv[1], out, target=load_target('host'), context=context)\n"
    )
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        before = [str(tmp_path / "before")] if number else []
        command = [sys.executable, "-c", code, str(gpt2_onnx), *before, str(folder)]
        # The second runs without address randomisation where that can be switched off.
        plain = ["setarch", "-R"] if number and shutil.which("setarch") else []
        subprocess.run([*plain, *command], check=True, env=environment, capture_output=True, timeout=300)
    files = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file())
    same, different, odd = filecmp.cmpfiles(*folders, files, shallow=False)
    assert (different, odd) == ([], [])
    assert len(same) == len(files) >= 8
