"""SHA-256 of ``edgeq-run``, with the processor's own instructions and without."""

import ctypes
import hashlib
import struct

import numpy as np
import pytest

from edgeq.targets.target import load_target
from edgeq.targets.toolchain import RUNNER, find_linker, run_compiler

START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
BOTH_WAYS = """
#include "sha256_blocks.c"
void portable(uint32_t *state, const uint8_t *blocks, size_t count) { absorb(state, blocks, count); }
void chosen(uint32_t *state, const uint8_t *blocks, size_t count) { sha256_blocks(state, blocks, count); }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digests")
    (folder / "both.c").write_text(BOTH_WAYS)
    arguments = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{RUNNER}", "-o", str(folder / "both.so")]
    run_compiler(find_linker(load_target("host")), [*arguments, str(folder / "both.c")], purpose="build a test")
    return ctypes.CDLL(str(folder / "both.so"))


@pytest.mark.parametrize("way", ["portable", "chosen"])
def test_digests_are_those_of_the_standard(library, way):
    chance = np.random.default_rng(3)
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 100_003):
        data = chance.bytes(size)
        padded = data + b"\x80" + bytes(-(size + 9) % 64) + struct.pack(">Q", 8 * size)
        state = (ctypes.c_uint32 * 8)(*START)
        getattr(library, way)(state, padded, ctypes.c_size_t(len(padded) // 64))
        assert struct.pack(">8I", *state).hex() == hashlib.sha256(data).hexdigest()
