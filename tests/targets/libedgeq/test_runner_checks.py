"""What a start compares: blocks of weights with their CRC-32 when a call first reads them, all files when asked."""

import itertools
import json
import subprocess
import zlib

import numpy as np
import pytest

from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.schema import DIGEST_BLOCK
from edgeq.targets.toolchain.libedgeq import LIBEDGEQ
from edgeq.targets.toolchain.linkers import find_linker, run_compiler
from tests.targets.changed_manifests import write_table

NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]
ROW = 12 * 4
"""Bytes of a row of the tiny model's table."""
FIRST_ROWS = 12
"""Rows of it that lie in the first block of the file."""
# The CRC-32 of the parts of a file between the given places; then whether all ways that the processor has agree.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "crc32.c"

static int instructions_agree(uint32_t expected, const uint8_t *data, size_t size) {
#if defined(__x86_64__)
  const struct {
    int is_there;
    size_t least;
    uint32_t (*add)(uint32_t state, const uint8_t **at, size_t *size);
  } ways[] = {{best_way() >= PRODUCTS, NARROW, add_narrow},
              {best_way() >= PRODUCTS_IN_PAIRS, WIDE, add_in_pairs},
              {best_way() >= WIDE_PRODUCTS, WIDE, add_wide}};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    const uint8_t *at = data;
    size_t left = size;
    if (!ways[i].is_there || size < ways[i].least) continue;
    uint32_t state = ways[i].add(~0u, &at, &left);
    if (~add_bytes(state, at, left) != expected) return 0;
  }
#else
  (void)expected, (void)data, (void)size;
#endif
  return 1;
}

int main(int count, char **arguments) {
  static uint8_t data[1 << 20];
  FILE *file = fopen(arguments[1], "rb");
  size_t start = 0, same = file != NULL && fread(data, 1, sizeof data, file) > 0;
  for (int i = 2; i < count; i++) {
    size_t end = strtoul(arguments[i], NULL, 10);
    uint32_t found = crc32_of(data + start, end - start);
    same = same && found == ~add_bytes(~0u, data + start, end - start);
    same = same && found == ~add_with_tables(~0u, data + start, end - start);
    same = same && instructions_agree(found, data + start, end - start);
    printf("%08x\n", found);
    start = end;
  }
  puts(same ? "same" : "other");
  return 0;
}
"""


@pytest.mark.parametrize("name", ["host", "cortex-a76", "cortex-a7"])
def test_crc_32_is_that_of_zlib(name, tmp_path, needs_core):
    """Here and under emulators: with wide products, with instructions of ARM, and with neither."""
    target = load_target(name)
    needs_core(name)
    (tmp_path / "crc.c").write_text(PROGRAM)
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    includes = [f"-I{LIBEDGEQ / part}" for part in ("include", "library")]
    names = ("cpu", "platform_posix", "platform_linux", "quota")
    sources = [str(tmp_path / "crc.c"), *(str(LIBEDGEQ / "library" / f"{name}.c") for name in names)]
    arguments = [*flags, *includes, "-o", str(tmp_path / "crc"), *sources, "-lpthread"]
    run_compiler(find_linker(target), arguments, purpose="build a test")
    lengths = [0, 1, 7, 15, 16, 63, 64, 65, 79, 127, 255, 256, 257, 319, 320, 511, 512, 1000, 4096 + 33, 70_001]
    messages = [np.random.default_rng(size).bytes(size) for size in lengths]
    (tmp_path / "data").write_bytes(b"".join(messages))
    emulator = None if target.is_host else target.emulator
    prefix = [emulator.program, *emulator.arguments, "-L", emulator.sysroot] if emulator is not None else []
    command = [*prefix, str(tmp_path / "crc"), str(tmp_path / "data"), *map(str, itertools.accumulate(lengths))]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert found == [*(f"{zlib.crc32(message):08x}" for message in messages), "same"]


@pytest.fixture
def spread(make_bundle, copy_of):
    """The tiny model: its table over the edge of the first two blocks, nothing in the third, its matrix in the fourth.

    Its manifest says which rows of the table the first kernel reads.
    """
    bundle = copy_of(make_bundle(NATIVE))
    table = json.loads((bundle / "manifest.json").read_text())
    old = (bundle / "weights.bin").read_bytes()
    rows, matrix = table["weights"]
    data = bytearray(3 * DIGEST_BLOCK + 5000)
    for weight, place in ((rows, DIGEST_BLOCK - FIRST_ROWS * ROW), (matrix, 3 * DIGEST_BLOCK)):
        data[place : place + weight["bytes"]] = old[weight["offset"] : weight["offset"] + weight["bytes"]]
        weight["offset"] = place
    (bundle / "weights.bin").write_bytes(data)
    record = file_record(bundle / "weights.bin")
    table["files"]["weights.bin"] = {**vars(record), "blocks": list(record.blocks)}
    (step,) = [step for step in table["functions"]["main"]["plan"]["steps"] if "w0" in step["args"]]
    number = step["args"].index("w0")
    step["rows"] = {"ids": 1 - number, "table": number, "tile": 1}
    write_table(bundle, table)
    return bundle


def damage(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


def embed(bundle, ids, *options):
    (bundle.parent / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
    command = [bundle / "edgeq-run", bundle, "--ids", bundle.parent / "ids.txt", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


FEW, MORE = [2, 5, 11, 3], [2, 5, 12, 3]
"""Ids whose rows lie in the first block, and such with one in the second."""


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize(
    ("block", "few_run", "more_run"), [(0, False, False), (1, True, False), (2, True, True), (3, False, False)]
)
def test_what_a_call_reads_is_compared_and_nothing_else(spread, threads, block, few_run, more_run):
    whole = [embed(spread, ids, "--threads", threads) for ids in (FEW, MORE)]
    assert [result.returncode for result in whole] == [0, 0]
    damage(spread / "weights.bin", block * DIGEST_BLOCK + 2500)
    for ids, runs, before in ((FEW, few_run, whole[0]), (MORE, more_run, whole[1])):
        result = embed(spread, ids, "--threads", threads)
        if runs:
            assert (result.returncode, result.stdout) == (0, before.stdout)
        else:
            expected = f"{spread / 'weights.bin'} is damaged: its CRC-32 is not what the manifest says"
            assert (result.returncode, result.stdout) == (1, "")
            assert expected in result.stderr
        all_of_it = embed(spread, ids, "--threads", threads, "--verify-all")
        assert all_of_it.returncode == 1
        assert f"{spread / 'weights.bin'} is damaged: its SHA-256" in all_of_it.stderr
        assert embed(spread, ids, "--no-verify").returncode == 0


def test_an_id_outside_of_the_table_is_refused_before_rows_are_looked_for(spread):
    for ids in ([2, 23], [2, 1 << 40], [5, (1 << 62) + 1]):
        assert "ids lie in 0..22" in embed(spread, ids).stderr


def test_rows_that_no_argument_holds_are_refused(spread):
    table = json.loads((spread / "manifest.json").read_text())
    (step,) = [step for step in table["functions"]["main"]["plan"]["steps"] if "rows" in step]
    good = step["rows"]
    for key, value in (("ids", 99), ("ids", -1), ("table", good["ids"]), ("table", 7), ("tile", 0), ("tile", "x")):
        step["rows"] = {**good, key: value}
        write_table(spread, table)
        result = embed(spread, FEW)
        assert result.returncode == 1
        assert "compile the bundle again" in result.stderr


def test_damage_after_the_first_call_is_not_looked_for_again_and_unused_files_are_left_alone(spread):
    damage(spread / "tokenizer.json", 3)
    (spread / "config.json").unlink(missing_ok=True)
    assert embed(spread, FEW).returncode == 0
    assert "tokenizer.json is damaged" in embed(spread, FEW, "--verify-all").stderr


@pytest.mark.parametrize("name", ["tokenizer.bin", f"code/{NATIVE}.so"])
def test_code_and_tokenizer_are_compared_at_the_start(spread, name):
    damage(spread / name, 100)
    result = embed(spread, FEW)
    assert result.returncode == 1
    assert f"{spread / name} is damaged: its CRC-32" in result.stderr


def test_golden_runs_are_compared_when_they_are_run(spread):
    damage(spread / "golden.bin", 8)
    assert embed(spread, FEW).returncode == 0
    command = [spread / "edgeq-run", spread, "--self-test"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert f"{spread / 'golden.bin'} is damaged: its CRC-32" in result.stderr


def test_a_signed_bundle_is_compared_as_a_whole(spread):
    """Whoever changed it on purpose could make the CRC-32 fit, but not the SHA-256 that the signature covers."""
    damage(spread / "weights.bin", 2 * DIGEST_BLOCK + 2500)
    assert embed(spread, FEW).returncode == 0
    (spread / "manifest.json.minisig").write_text("signature\n")
    assert "weights.bin is damaged: its SHA-256" in embed(spread, FEW).stderr


def test_a_bundle_without_crc_32_is_compared_with_its_sha_256(spread):
    table = json.loads((spread / "manifest.json").read_text())
    del table["files"]["weights.bin"]["crc32"]
    write_table(spread, table)
    assert embed(spread, FEW).returncode == 0
    damage(spread / "weights.bin", 2 * DIGEST_BLOCK + 2500)
    assert "weights.bin is damaged: its SHA-256" in embed(spread, FEW).stderr


@pytest.mark.parametrize("digits", ["", "00", "0123456X" * 4, "01234567" * 3, "01234567" * 5])
def test_crc_32_that_do_not_fit_the_file_are_refused(spread, digits):
    table = json.loads((spread / "manifest.json").read_text())
    table["files"]["weights.bin"]["crc32"] = digits
    write_table(spread, table)
    assert "'weights.bin' has no CRC-32 for each of its blocks" in embed(spread, FEW).stderr


def test_both_ways_at_once_make_no_sense(spread):
    result = embed(spread, FEW, "--verify-all", "--no-verify")
    assert result.returncode == 2
    assert "exclude each other" in result.stderr
