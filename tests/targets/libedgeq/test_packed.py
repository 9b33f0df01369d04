"""Packed bundles in C: one file, cut and damaged ones, and a program with a bundle at its end where nothing else is."""

import hashlib
import json
import os
import struct
import subprocess

import pytest

from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.libedgeq import build_static_runner

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
PAGE = 4096


def _padded(data):
    return data + bytes(-len(data) % PAGE)


def pack(bundle):
    """The bytes of a packed bundle, as targets/libedgeq/library/pack.h describes them."""
    listed = json.loads((bundle / "manifest.json").read_text())["files"]
    names = ["manifest.json", "manifest.sha256", *listed]
    size = 64 + sum(18 + len(name) for name in names)
    place, table, body = size + -size % PAGE, b"", b""
    for name in names:
        data = (bundle / name).read_bytes()
        table += struct.pack("<QQH", place, len(data), len(name)) + name.encode()
        body += _padded(data)
        place += len(_padded(data))
    head = b"EDGEQPK1" + struct.pack("<IIQQ", 1, len(names), place, len(table)) + hashlib.sha256(table).digest()
    return _padded(head + table) + body


@pytest.fixture
def board(make_bundle):
    return make_bundle(NATIVE)


def _self_test(program, *arguments, **options):
    return subprocess.run(
        [str(program), *map(str, arguments), "--self-test"], capture_output=True, text=True, check=False, **options
    )


def test_a_packed_bundle_runs_as_its_folder_does(board, sanitized, tmp_path):
    (tmp_path / "model.edgeq").write_bytes(pack(board))
    result = _self_test(sanitized, tmp_path / "model.edgeq")
    assert (result.returncode, result.stdout) == (0, _self_test(sanitized, board).stdout)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, b"X", "is neither a folder nor a packed bundle"),
        (8, b"\x02", "is packed in version 2, expected 1"),
        (12, b"\xff\xff", "its table lies outside of it"),
        (16, b"\xff", "it has another size than it says"),
        (30, b"\x01", "its table lies outside of it"),
        (64, b"\x01", "the SHA-256 of its table is another one"),
        (-PAGE, b"\x77", "is damaged: its CRC-32 is not what the manifest says"),
    ],
)
def test_a_damaged_one_is_a_sentence(board, sanitized, tmp_path, at, data, message):
    packed = bytearray(pack(board))
    at %= len(packed)
    packed[at : at + len(data)] = data
    (tmp_path / "model.edgeq").write_bytes(packed)
    result = _self_test(sanitized, tmp_path / "model.edgeq")
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_cut_one_is_a_sentence(board, sanitized, tmp_path):
    whole = pack(board)
    for size in (0, 7, 63, 64, 200, PAGE, len(whole) - 1):
        (tmp_path / "model.edgeq").write_bytes(whole[:size])
        result = _self_test(sanitized, tmp_path / "model.edgeq")
        assert result.returncode in (1, 2)
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "golden.bin"])
def test_a_pipe_in_a_bundle_is_not_waited_for(board, copy_of, sanitized, name):
    odd = copy_of(board)
    (odd / name).unlink()
    os.mkfifo(odd / name)
    result = _self_test(sanitized, odd, timeout=20)
    assert result.returncode in (1, 2)
    assert f"{name} is not a file" in result.stderr


def test_control_characters_do_not_reach_the_terminal(sanitized, tmp_path):
    result = _self_test(sanitized, tmp_path / "no\x1b[31m\x07such")
    assert result.returncode == 2
    assert r"no\x1b[31m\x07such" in result.stderr


@pytest.mark.slow
def test_one_static_program_needs_nothing_around_it(board, tmp_path):
    """zig brings the C library; the root holds this one file."""
    build_static_runner(load_target(NATIVE), tmp_path / "edgeq-run")
    program, packed = _padded((tmp_path / "edgeq-run").read_bytes()), pack(board)
    root = tmp_path / "root"
    root.mkdir()
    (root / "model").write_bytes(program + packed + b"EDGEQEND" + struct.pack("<QQQ", len(program), len(packed), 0))
    (root / "model").chmod(0o755)
    result = _self_test(root / "model")
    assert (result.returncode, result.stderr) == (0, "")
    if os.geteuid() == 0:
        inside = subprocess.run(["chroot", root, "/model", "--self-test"], capture_output=True, text=True, check=False)
        assert (inside.returncode, inside.stdout) == (0, result.stdout)
    # 16 bytes of ELF's header say that it is static: no program header asks for an interpreter.
    assert b"ld-linux" not in program
    assert b"ld-musl" not in program
