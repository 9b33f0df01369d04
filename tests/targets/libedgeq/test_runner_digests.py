"""SHA-256 of ``edgeq-run``: with the processor's own instructions and without, alone, in pairs and on many threads."""

import dataclasses
import hashlib
import itertools
import subprocess

import numpy as np
import pytest

import edgeq
from edgeq.errors import FormatError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.digests import check_blocks, check_whole_files, file_record
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.schema import DIGEST_BLOCK
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ
from edgeq.targets.toolchain.linkers import find_linker, run_compiler

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
# Digests of the parts of a file between the given places; then whether the way without instructions agrees.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "sha256.h"
#include "sha256_blocks.c"

int main(int count, char **arguments) {
  static Message parts[64];
  static char found[64][SHA256_HEX];
  uint32_t states[2][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8}};
  static char data[1 << 20];
  FILE *file = fopen(arguments[1], "rb");
  size_t size = file != NULL ? fread(data, 1, sizeof data, file) : 0;
  size_t start = 0, filled = 0;
  for (int i = 2; i < count; i++) {
    size_t end = strtoul(arguments[i], NULL, 10);
    parts[filled++] = (Message){data + start, end - start};
    start = end;
  }
  sha256_hex(parts, filled, found);
  for (size_t i = 0; i < filled; i++) puts(found[i]);
  absorb(states[0], (const uint8_t *)data, size / 64);
  sha256_blocks(states[1], (const uint8_t *)data, size / 64);
  puts(memcmp(states[0], states[1], 32) == 0 ? "same" : "other");
  return 0;
}
"""


@pytest.fixture(scope="module", params=["host", "cortex-a76", "cortex-a7"])
def digests(request, tmp_path_factory, needs_core):
    """Runs the program above here or under the target's emulator; a Cortex-A7 has no instructions for digests."""
    target, folder = load_target(request.param), tmp_path_factory.mktemp("digests")
    emulator = None if target.is_host else target.emulator
    needs_core(request.param)
    (folder / "digest.c").write_text(PROGRAM)
    names = ("sha256", "sha256_lanes", "cpu", "platform_posix", "platform_linux", "quota")
    sources = [folder / "digest.c", *(LIBEDGEQ / "library" / f"{name}.c" for name in names)]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    includes = [f"-I{LIBEDGEQ / part}" for part in ("include", "library")]
    arguments = [*flags, *includes, "-o", str(folder / "digest"), *map(str, sources), "-lpthread"]
    run_compiler(find_linker(target), arguments, purpose="build a test")
    prefix = [emulator.program, *emulator.arguments, "-L", emulator.sysroot] if emulator is not None else []

    def run(data, lengths):
        (folder / "data").write_bytes(data)
        ends = map(str, itertools.accumulate(lengths))
        command = [*prefix, str(folder / "digest"), str(folder / "data"), *ends]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        assert found.pop() == "same"
        return found

    return run


SIZES = (0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 100_003)
PARTS = [
    *((size,) for size in SIZES),
    *((size, other) for size in (0, 63, 64, 1000) for other in (0, 1, 64, 200, 5000)),
    *((size,) * count for size in (0, 63, 64, 130, 4096) for count in (3, 8, 9, 15, 16, 17, 40)),
    (4096,) * 16 + (4096, 5),
    (7,) + (640,) * 12 + (639,) * 12,
]
"""Lengths of messages: alone, in pairs, and as many alike as fill the lanes of wide registers, and fewer, and more."""


def test_digests_are_those_of_the_standard(digests):
    chance = np.random.default_rng(3)
    for lengths in PARTS:
        messages = [chance.bytes(length) for length in lengths]
        expected = [hashlib.sha256(message).hexdigest() for message in messages]
        assert digests(b"".join(messages), lengths) == expected, lengths


@pytest.fixture
def large(make_bundle, copy_of):
    """A bundle with one more file, of 24 blocks, of which the last is short."""
    bundle = copy_of(make_bundle(NATIVE))
    (bundle / "large.bin").write_bytes(np.random.default_rng(4).bytes(23 * DIGEST_BLOCK + 5))
    manifest = read_manifest(bundle)
    manifest.files["large.bin"] = file_record(bundle / "large.bin")
    write_manifest(bundle, manifest)
    return bundle


def self_test(bundle, *options):
    """Runs it with all files compared with their SHA-256."""
    command = [bundle / "edgeq-run", bundle, "--self-test", "--verify-all", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_one_bit_is_seen_in_every_block(large, threads):
    path = large / "large.bin"
    original = path.read_bytes()
    for at in (None, 0, DIGEST_BLOCK - 1, DIGEST_BLOCK, 18 * DIGEST_BLOCK + 7, len(original) - 1):
        data = bytearray(original)
        if at is not None:
            data[at] ^= 4
        path.write_bytes(data)
        result = self_test(large, "--threads", str(threads))
        if at is None:
            assert (result.returncode, result.stderr) == (0, "")
            edgeq.load(large, threads=threads)
            continue
        assert result.returncode == 1
        assert result.stderr.startswith(f"edgeq-run: {path} is damaged: its SHA-256 is not what the manifest says")
        with pytest.raises(FormatError, match=r"large\.bin is damaged"):
            edgeq.load(large, threads=threads)


def test_one_of_several_damaged_files_is_named_and_always_the_same(large):
    for name in ("large.bin", "golden.bin", "tokenizer.json"):
        data = bytearray((large / name).read_bytes())
        data[len(data) // 2] ^= 1
        (large / name).write_bytes(data)
    for _ in range(5):
        result = self_test(large)
        assert f"{large / 'large.bin'} is damaged" in result.stderr  # files with whole blocks come first


def test_a_list_of_blocks_that_does_not_fit_is_refused(large):
    manifest = read_manifest(large)
    record = manifest.files["large.bin"]
    for blocks in ((), record.blocks[:-1], (*record.blocks, record.blocks[0])):
        manifest.files["large.bin"] = dataclasses.replace(record, blocks=blocks)
        write_manifest(large, manifest)
        result = self_test(large)
        assert result.returncode == 1
        assert f"'large.bin' has {len(blocks)} digests of blocks, not 24" in result.stderr
        with pytest.raises(FormatError, match=f"need 24 blocks, found {len(blocks)}"):
            read_manifest(large)


def test_whole_files_are_compared_too(large):
    """A manifest whose digest of the whole is wrong would make every copy look damaged to ``sha256sum``."""
    manifest = read_manifest(large)
    record = manifest.files["large.bin"]
    manifest.files["large.bin"] = dataclasses.replace(record, sha256="0" * 64)
    check_blocks(large, manifest.files, threads=2)
    with pytest.raises(FormatError, match=r"large\.bin is damaged"):
        check_whole_files(large, manifest.files)
