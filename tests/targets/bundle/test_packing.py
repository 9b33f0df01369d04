"""A bundle as one file and back; what is damaged, cut or hostile is a sentence."""

import hashlib
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest

import edgeq.cli.main as cli
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.targets.bundle import packing
from edgeq.targets.bundle.packing import pack_bundle, pack_program, unpack_bundle


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def packed(host_bundle, tmp_path):
    return pack_bundle(host_bundle, tmp_path / "tiny.edgeq")


def test_unpacking_gives_the_same_folder_byte_for_byte(host_bundle, packed, tmp_path):
    out = unpack_bundle(packed, tmp_path / "out")
    assert _files(out) == _files(host_bundle)
    assert (out / "edgeq-run").stat().st_mode & 0o111
    assert not (out / "weights.bin").stat().st_mode & 0o111


def test_packing_twice_gives_the_same_bytes_and_every_file_starts_a_page(host_bundle, packed, tmp_path):
    assert pack_bundle(host_bundle, tmp_path / "again.edgeq").read_bytes() == packed.read_bytes()
    with packed.open("rb") as stream:
        places = packing._read_table(stream, packed, start=0, size=packed.stat().st_size)
    assert [name for name, _, _ in places][:2] == ["manifest.json", "manifest.sha256"]
    assert all(offset % 4096 == 0 for _, offset, _ in places)


def test_the_program_of_the_bundle_reads_the_packed_file(host_bundle, packed):
    words = ["--text", "w1 w5", "--json"]
    outputs = [
        subprocess.run([host_bundle / "edgeq-run", what, *words], capture_output=True, text=True, check=True).stdout
        for what in (host_bundle, packed)
    ]
    assert outputs[0] == outputs[1] != ""


def test_a_program_needs_nothing_but_itself(host_bundle, tmp_path):
    program = pack_program(host_bundle, tmp_path / "tiny")
    alone = tmp_path / "alone" / "tiny"
    alone.parent.mkdir()
    shutil.copy(program, alone)
    words, options = ["--text", "w1 w5", "--json"], {"capture_output": True, "text": True, "check": True}
    found = subprocess.run([alone, *words], **options, env={})
    wanted = subprocess.run([host_bundle / "edgeq-run", host_bundle, *words], **options)
    assert found.stdout == wanted.stdout != ""
    assert b"/ld-" not in alone.read_bytes()[:4096]  # no program is asked to load it
    assert _files(unpack_bundle(program, tmp_path / "out")) == _files(host_bundle)


def test_a_damaged_bundle_is_not_packed(host_bundle, copy_of, tmp_path):
    damaged = copy_of(host_bundle)
    data = bytearray((damaged / "weights.bin").read_bytes())
    data[3] ^= 1
    (damaged / "weights.bin").write_bytes(data)
    with pytest.raises(FormatError, match=r"weights\.bin is damaged"):
        pack_bundle(damaged, tmp_path / "x.edgeq")
    assert not (tmp_path / "x.edgeq").exists()


def _with_table(data: bytes, change) -> bytes:
    """The pack with another table, whose digest is right."""
    magic, version, count, whole, size, _ = packing._HEADER.unpack_from(data)
    table = change(bytearray(data[64 : 64 + size]))
    header = packing._HEADER.pack(magic, version, count, whole, size, hashlib.sha256(table).digest())
    return header + bytes(table) + data[64 + size :]


def _set(at, form, value):
    def change(table):
        struct.pack_into(form, table, at, value)
        return table

    return change


DAMAGES = [
    (lambda data: b"", "neither a packed bundle"),
    (lambda data: b"zip" + data[3:], "neither a packed bundle"),
    (lambda data: data[:40], "damaged packed bundle"),
    (lambda data: data[:-1], "damaged packed bundle"),
    (lambda data: data[:70] + b"\xff" + data[71:], "damaged packed bundle"),
    (lambda data: data[:24] + struct.pack("<Q", 1 << 60) + data[32:], "damaged packed bundle"),
    (lambda data: _with_table(data, _set(0, "<Q", 1 << 62)), "damaged packed bundle"),
    (lambda data: _with_table(data, _set(0, "<Q", 4097)), "damaged packed bundle"),
    (lambda data: _with_table(data, _set(8, "<Q", 1 << 62)), "damaged packed bundle"),
    (lambda data: _with_table(data, _set(16, "<H", 60000)), "damaged packed bundle"),
    (lambda data: _with_table(data, lambda table: table.replace(b"manifest.json", b"../ifest.json")), "damaged packed"),
    (lambda data: data[:-4096] + bytes([data[-4096] ^ 1]) + data[-4095:], r"weights\.bin is damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_file_is_a_sentence_and_leaves_nothing(packed, tmp_path, damage, message):
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(FormatError, match=message) as caught:
        unpack_bundle(packed, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_any_flipped_byte_is_found_or_lies_in_padding(host_bundle, packed, tmp_path):
    data, chance = packed.read_bytes(), np.random.default_rng(0)
    for place in chance.integers(0, len(data), 40):
        packed.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            out = unpack_bundle(packed, tmp_path / "out", force=True)
        except (FormatError, UnsupportedError):
            continue
        assert _files(out) == _files(host_bundle)


def test_another_version_is_told_from_damage(packed, tmp_path):
    data = packed.read_bytes()
    packed.write_bytes(data[:8] + struct.pack("<I", 2) + data[12:])
    with pytest.raises(UnsupportedError, match="is of version 2, this edgeq reads version 1"):
        unpack_bundle(packed, tmp_path / "out")


def test_nothing_else_is_replaced(host_bundle, packed, tmp_path):
    pack_bundle(host_bundle, packed)
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader")
    with pytest.raises(UsageError, match="is no packed bundle, so it is not replaced"):
        pack_bundle(host_bundle, letter)
    assert letter.read_text() == "Dear reader"
    with pytest.raises(UsageError, match="is a folder"):
        pack_bundle(host_bundle, tmp_path)
    with pytest.raises(UsageError, match="is no folder; make it first"):
        pack_bundle(host_bundle, tmp_path / "none" / "x.edgeq")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear reader")
    with pytest.raises(UsageError, match="not written by"):
        unpack_bundle(packed, tmp_path / "mine")
    with pytest.raises(UsageError, match="does not exist"):
        unpack_bundle(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UsageError, match="would replace the source"):
        unpack_bundle(packed, packed.parent, force=True)
    assert packed.is_file()


def test_a_pipe_is_neither_read_nor_replaced(host_bundle, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="found a named pipe"):
        unpack_bundle(tmp_path / "pipe", tmp_path / "out")
    with pytest.raises(UsageError, match="is no packed bundle, so it is not replaced"):
        pack_bundle(host_bundle, tmp_path / "pipe")
    assert not (tmp_path / "out").exists()


def test_the_verbs(host_bundle, tmp_path, capsys):
    assert cli.main(["pack", str(host_bundle), str(tmp_path / "a.edgeq")]) == 0
    assert cli.main(["unpack", str(tmp_path / "a.edgeq"), str(tmp_path / "a")]) == 0
    assert _files(tmp_path / "a") == _files(host_bundle)
    assert cli.main(["pack", str(tmp_path), str(tmp_path / "b.edgeq")]) == 2
    assert "is not a bundle" in capsys.readouterr().err
