"""32-bit ARM: kernels in ARM code, helpers in Thumb code, constants between them, and what an instruction moves."""

import dataclasses
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import FormatError, UnsupportedError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.tensor_sets import call_of_main
from edgeq.targets.devices.estimate import emulation, processor_model, tools
from edgeq.targets.devices.estimate.arm32 import disassemble_arm32, for_the_model, parse_arm32
from edgeq.targets.devices.estimate.disassembler import disassemble
from edgeq.targets.devices.estimate.estimator import estimate_bundle
from edgeq.targets.devices.estimate.machine_code import Block, Instruction
from edgeq.targets.devices.estimate.memory_traffic import bytes_moved
from edgeq.targets.devices.workload import made_up_texts
from edgeq.targets.runtime.manifest import read_manifest

ARM = """
model.so:\tfile format elf32-littlearm

Disassembly of section .text:

00000100 <__tvm_ffi_add>:
     100:      \tldr\tr1, [pc, #0x14]         @ 0x11c <__tvm_ffi_add+0x1c>
     104:      \tmov\tr2, #1
     108:      \tadd\tr1, pc, r1
     10c:      \tblx\t0x200 <__tvm_ffi_sum+0xc0> @ imm = #0xf0
     110:      \tbne\t0x118 <__tvm_ffi_add+0x18> @ imm = #0x0
     114:      \tpopeq\t{r4, pc}
     118:      \tpop\t{r4, pc}
     11c:      \tandeq\tr0, r0, r0, lsl #1

00000140 <__tvm_ffi_sum>:
     140:      \tvld1.64\t{d16, d17}, [r1]!
     144:      \tsubs\tr2, r2, #1
     148:      \tbgt\t0x140 <__tvm_ffi_sum> @ imm = #-0x10
     14c:      \tblx\tr3
     150:      \tbx\tlr
     190:      \tvfma.f32\tq8, q9, q10
     194:      \tldr\tpc, [r0, r1, lsl #2]
     200:      \t<unknown>
"""
THUMB = """
00000140 <__tvm_ffi_sum>:
     200:      \torrs.w\tr2, r0, r1
     204:      \tit\teq
     206:      \tbxeq\tlr
     208:      \tcbz\tr0, 0x20e <__tvm_ffi_sum+0xce> @ imm = #0x2
     20a:      \tb.w\t0x200 <__tvm_ffi_sum+0xc0> @ imm = #-0xe
     20e:      \tbx\tlr
"""
CONSTANT = 0x80
"""At 0x11c: how far the body of a parallel loop is from the addition that makes its address, which reads 0x110."""


@pytest.fixture
def library(tmp_path):
    """A file with one segment, mapped at 0, that has the constant."""
    header = b"\x7fELF\x01\x01" + bytes(22) + struct.pack("<I", 52) + bytes(10) + struct.pack("<HH", 32, 1) + bytes(6)
    segment = struct.pack("<8I", 1, 0, 0, 0, 0x200, 0x200, 5, 4)
    data = bytearray((header + segment).ljust(0x200, b"\0"))
    data[0x11C:0x120] = struct.pack("<I", CONSTANT)
    path = tmp_path / "model.so"
    path.write_bytes(data)
    return path


def _listing(instruction_set, start):
    return {"armv7": ARM, "thumbv7": THUMB}[instruction_set]


def _owners(code):
    return {
        one.address: block.kernel
        for block in code.blocks({one.address: 1 for one in code.instructions})
        for one in block.instructions
    }


def test_kernels_own_bodies_of_loops_and_what_only_they_call_in_thumb_code(library):
    owners = _owners(disassemble_arm32(library, listing=_listing))
    assert {owners[address] for address in (0x100, 0x114, 0x118, 0x190, 0x194)} == {"add"}
    assert {owners[address] for address in (0x200, 0x204, 0x206, 0x208, 0x20A, 0x20E)} == {"add"}
    assert {owners[address] for address in (0x140, 0x14C, 0x150)} == {"sum"}
    assert 0x11C not in owners  # a constant


def test_sizes_and_instruction_sets_are_kept_and_blocks_end_at_branches(library):
    code = disassemble_arm32(library, listing=_listing)
    by_address = {one.address: one for one in code.instructions}
    assert [(by_address[at].size, by_address[at].thumb) for at in (0x100, 0x200, 0x204, 0x20A)] == [
        (4, False),
        (4, True),
        (2, True),
        (4, True),
    ]
    blocks = [[one.address for one in block.instructions] for block in code.blocks(dict.fromkeys(by_address, 1))]
    assert blocks[:3] == [[0x100, 0x104, 0x108, 0x10C, 0x110], [0x114], [0x118]]
    assert (by_address[0x114].goes_on, by_address[0x118].goes_on) == (True, False)


def test_a_constant_in_two_halves_is_an_address_too():
    text = ARM.replace("\tldr\tr1, [pc, #0x14] ", "\tmovw\tr1, #0x80").replace("\tmov\tr2, #1", "\tmovt\tr1, #0x0")
    assert parse_arm32(text, word=lambda _: None)[0x108].refers == 0x190
    # Nor is a register believed beyond a branch.
    beyond = text.replace("\tmovt\tr1, #0x0", "\tb\t0x108")
    assert parse_arm32(beyond, word=lambda _: None)[0x108].refers is None


def test_thumb_kernels_and_other_files_are_refused_by_name(library, tmp_path):
    with pytest.raises(UnsupportedError, match="its kernels must be ARM code and are Thumb code; compile the bundle"):
        disassemble_arm32(library, listing=lambda *_: ARM.replace("     100:", "     102:"))
    other = tmp_path / "other.so"
    other.write_bytes(b"\x7fELF\x02\x01" + bytes(100))
    with pytest.raises(FormatError, match=r"other.so must be a little-endian 32-bit ELF file and is not"):
        disassemble_arm32(other, listing=_listing)
    other.write_bytes(library.read_bytes()[:60])
    with pytest.raises(FormatError, match=r"program headers of .*other.so are cut off"):
        disassemble_arm32(other, listing=_listing)


def test_a_target_that_asks_for_thumb_code_is_refused():
    plain = load_target("cortex-a7")
    thumb = dataclasses.replace(plain, features=(*plain.features, "+thumb-mode"))
    with pytest.raises(UnsupportedError, match=r"its feature \+thumb-mode asks for Thumb code"):
        emulation.emulator_command(thumb)


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdef:\t <>#,[]{}px@\n", max_size=200), st.booleans())
def test_any_text_is_read_without_an_error(text, thumb):
    assert isinstance(parse_arm32(text, word=lambda _: 4, thumb=thumb), dict)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("ldr r0, [r1]", 4),
        ("ldrb r0, [r1]", 4),
        ("ldrd r0, r1, [sp, #8]", 8),
        ("strdeq r0, r1, [sp, #8]", 8),
        ("push {r4, r5, r6, lr}", 16),
        ("ldm r1, {r0, r5}", 8),
        ("vldmia lr, {d8, d9}", 16),
        ("vpush {d8-d15}", 64),
        ("vld1.64 {d16, d17}, [r0:128]!", 16),
        ("vld1.8 {d16}, [r0]", 8),
        ("vld1.32 {d20[], d21[]}, [r1:32]", 8),
        ("vld1.32 {d20[1]}, [r1:32]", 8),
        ("vstr s0, [r1]", 4),
        ("vldr d0, [r1]", 8),
        ("add r0, r1, r2", 0),
        ("vmov.32 d8[0], r8", 0),
        ("bx lr", 0),
    ],
)
def test_what_an_instruction_can_move(text, size):
    assert bytes_moved(text, bits32=True) == size


def test_what_no_model_has_cycles_for_is_made_of_what_it_has():
    one = Instruction(0, "")
    assert for_the_model(one, "vldmia r1!, {d8, d9}") == ["vldr d8, [r1, #0]", "vldr d9, [r1, #4]"]
    assert for_the_model(one, "pop {r4, pc}") == ["ldr r4, [sp, #0]"]
    assert for_the_model(one, "stmib sp, {r1, r7}") == ["str r1, [sp, #0]", "str r7, [sp, #4]"]
    assert for_the_model(one, "vmull.s8 q5, d19, d9") == ["vmull.s8 q5, d19, d9"]
    assert for_the_model(Instruction(0, "", thumb=True), "itte eq") == []


@pytest.mark.needs("llvm-mca")
def test_the_model_takes_arm_and_thumb_code_with_what_its_processor_lacks(tmp_path):
    llvm = tools.find_llvm()
    arm = ("vfma.f32 q0, q8, q9", "sdiv r0, r1, r2", "vpop {d8, d9}", "pop {r4, pc}", "bx lr", "blx r3")
    thumb = ("it eq", "addeq.w r0, r0, r1", "bxeq lr")
    chain = tuple(f"vmull.s8 q{at}, d16, d17" for at in range(4))
    blocks = [
        Block(tuple(Instruction(4 * at, text, is_call=text == "blx r3") for at, text in enumerate(arm)), 1, "k"),
        Block(tuple(Instruction(4 * at, text, thumb=True) for at, text in enumerate(thumb)), 1, "k"),
        Block(tuple(Instruction(4 * at, text) for at, text in enumerate(chain)), 1, "k"),
    ]
    options = {"program": llvm.mca, "triple": "armv7-unknown-linux-gnueabihf", "cpu": "cortex-a9", "folder": tmp_path}
    first, second, third = processor_model.cycles_of_blocks(blocks, **options)
    assert first > 5
    assert 0 < second < 3
    assert 4 <= third < 10  # a multiplication of 64 bits a cycle, or of less


@pytest.mark.slow
@pytest.mark.needs("llvm-mca", "arm-counter", "armhf-emulator")
def test_a_bundle_for_32_bits_is_estimated(make_bundle):
    bundle = make_bundle("cortex-a7")
    short, long = (estimate_bundle(bundle, sequence=sequence) for sequence in (4, 36))
    product = {kernel.name: kernel for kernel in long.kernels}["matmul"]
    assert product.calls == 1
    assert product.instructions > 3 * next(k for k in short.kernels if k.name == "matmul").instructions
    assert long.seconds > short.seconds > 0
    assert sum(kernel.share for kernel in long.kernels) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.needs("llvm-mca", "arm-counter", "armhf-emulator")
def test_every_kernel_that_runs_is_found_in_the_code(make_bundle):
    """No kernel's instructions are lost, and none are counted for a kernel that the emulator did not run."""
    folder, target = make_bundle("cortex-a7"), load_target("cortex-a7")
    manifest = read_manifest(folder)
    call = call_of_main(made_up_texts(manifest, folder, batch=1, sequence=20).inputs, manifest)
    emulated = emulation.emulate(folder, manifest, call, target=target)
    code = disassemble(folder / manifest.targets[0].code, program=tools.find_llvm().objdump, target=target)
    blocks = code.blocks(emulation.counts_by_address(emulated, code))
    ran = {kernel["name"] for kernel in emulated.kernels}
    assert ran <= {block.kernel for block in blocks} <= ran | {"(shared by kernels)"}
