"""Kernels use the instructions that their target is for, and compute the same with them.

Few processors have AVX-VNNI, and no emulator models it. Its one instruction is AVX-512's with another encoding, so the
same kernel is run in that encoding, and the code for the target is looked at. i8mm runs under the emulator in
``test_every_target_slow.py``.
"""

import dataclasses

import numpy as np
import pytest

from edgeq.formats.low_bit import PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.isa import isa_named
from edgeq.targets.compiler.kernels.low_bit_matmul import low_bit_matmul
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns
from edgeq.targets.compiler.objects import PASS_OPTIONS
from edgeq.targets.runtime.machine import this_machine

FORMATS = [(1, 0.5), (8, 128.0)]
ROWS, COLUMNS = 37, 53


def compiled(matrix, target, *, seven_bits=False):
    import tvm

    function = low_bit_matmul(isa_named(target.isa), matrix, rank=1, has_bias=True, seven_bits=seven_bits)
    with tvm.transform.PassContext(opt_level=3, config=PASS_OPTIONS):
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        return tvm.compile(module, target=tvm.target.Target(target.tvm_target))


@pytest.mark.parametrize(
    ("name", "used", "unused"),
    [
        ("x86-64-avxvnni", ["{vex}\tvpdpbusd", "prefetcht0"], ["%zmm"]),
        ("x86-64-amx", ["tdpbsud", "tileloaddt1", "ldtilecfg", "tilerelease"], ["vpmaddubsw"]),
        ("neoverse-v1", ["\tsmmla\t"], ["\tz0", "prfm"]),
        ("cortex-a7", ["\tvmlal.s8\t"], ["fmaf", "\tpld"]),
        pytest.param("x86-64-v3", ["vpmaddubsw", "prefetcht0"], ["vpdpbusd"], marks=pytest.mark.slow),
        pytest.param("cortex-a76", ["\tsdot\t"], ["smmla", "prfm"], marks=pytest.mark.slow),
        pytest.param("cortex-a72", ["\tsmull"], ["\tsdot\t", "prfm"], marks=pytest.mark.slow),
    ],
)
def test_code_has_the_targets_instructions_and_no_others(name, used, unused):
    assembly = compiled(PackedMatrix(ROWS, COLUMNS, 2, 1.5, ROWS), load_target(name)).mod.inspect_source("asm")
    assert [one for one in used if one not in assembly] == []
    assert [one for one in unused if one in assembly] == []


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
def test_7_bit_codes_are_multiplied_without_their_signs(name):
    matrix, target = PackedMatrix(ROWS, COLUMNS, 8, 64.0, ROWS), load_target(name)
    plain, seven = (compiled(matrix, target, seven_bits=bits).mod.inspect_source("asm") for bits in (False, True))
    assert "psignb" in plain
    assert "psignb" not in seven
    assert "pmaddubsw" in seven


@pytest.mark.parametrize(("bits", "zero_point"), FORMATS)
def test_the_256_bit_dot_product_is_exact(bits, zero_point):
    import tvm

    vnni = load_target("x86-64-vnni")
    if not vnni.runs_on(this_machine()):
        pytest.skip("this machine lacks AVX-512 VNNI, whose encoding the kernel is run in")
    run = compiled(
        PackedMatrix(ROWS, COLUMNS, bits, zero_point, ROWS), dataclasses.replace(vnni, isa="avx_vnni")
    )["main"]
    chance = np.random.default_rng(bits)
    low, high = levels(bits, zero_point)
    codes = chance.integers(low, high + 1, (ROWS, COLUMNS)).astype(np.uint8)
    packed = pack(codes, bits)
    words = packed.view(np.int32).reshape(packed.shape[:3])
    for tokens in (1, 2, 3, 5, 8):
        q = np.zeros((tokens, padded_columns(COLUMNS)), np.int8)
        q[:, :COLUMNS] = chance.choice([-127, 127, 3], (tokens, COLUMNS))
        arrays = [
            q.view(np.int32), np.ones(tokens, np.float32), q.sum(1, dtype=np.int32), words, np.ones(ROWS, np.float32),
            np.zeros(ROWS, np.float32), np.full((tokens, ROWS), np.nan, np.float32),
        ]  # fmt: skip
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        run(*tensors)
        np.testing.assert_array_equal(tensors[-1].numpy(), q[:, :COLUMNS].astype(np.float64) @ (codes - zero_point).T)
