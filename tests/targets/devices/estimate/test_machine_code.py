"""Disassembly to blocks: which kernel owns what, where blocks end, and what an instruction can move."""


import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.targets.devices.estimate.machine_code import MachineCode, parse_disassembly
from edgeq.targets.devices.estimate.memory_traffic import bytes_moved

ARM = """
model.so:\tfile format elf64-littleaarch64

Disassembly of section .text:

0000000000000100 <__tvm_ffi_add>:
     100:      \tadrp\tx0, 0x1000 <__tvm_ffi_add+0x10>
     104:      \tadd\tx0, x0, #64
     108:      \tbl\t0x200 <TVMBackendParallelLaunch@plt>
     10c:      \tcbz\tw0, 0x114 <__tvm_ffi_add+0x14>
     110:      \tudf\t#0
     114:      \tret

0000000000000118 <__tvm_ffi_sum>:
     118:      \tldp\tq0, q1, [x1], #32
     11c:      \tsubs\tx2, x2, #1
     120:      \tb.ne\t0x118 <__tvm_ffi_sum>
     124:      \tbl\t0x300 <.text+0x80>
     128:      \tret

0000000000000300 <.text>:
     300:      \tret
    1040:      \tfmla\tv0.4s, v1.4s, v2.4s
    1044:      \tbl\t0x300 <.text+0x80>
    1048:      \tret
"""
X86 = """
0000000000001000 <__tvm_ffi_gelu>:
    1000:      \tleaq\t57(%rip), %rdi           # 0x1040 <__tvm_ffi_gelu+0x40>
    1007:      \tcallq\t*74(%rip)           # 0x2008 <.got>
    100d:      \tjne\t0x1012 <__tvm_ffi_gelu+0x12>
    100f:      \tjmpq\t*%rax
    1012:      \tretq
    1040:      \tvmovups\t32(%rsi,%rax,4), %ymm1
    1045:      \taddq\t$8, %rax
    1049:      \tjb\t0x1040 <__tvm_ffi_gelu+0x40>
    104b:      \tretq
"""


def _owners(text):
    code = parse_disassembly(text)
    everything = {one.address: 1 for one in code.instructions}
    return {one.address: block.kernel for block in code.blocks(everything) for one in block.instructions}


def test_bodies_of_parallel_loops_belong_to_the_kernel_that_hands_out_their_address():
    arm, x86 = _owners(ARM), _owners(X86)
    assert {arm[address] for address in (0x100, 0x108, 0x114, 0x1040, 0x1048)} == {"add"}
    assert arm[0x118] == arm[0x128] == "sum"
    assert arm[0x300] == "(shared by kernels)"
    assert set(x86.values()) == {"gelu"}
    assert set(x86) >= {0x1040, 0x1049}
    # Nobody leads to what follows a jump that never returns: it is no kernel's.
    assert 0x110 in arm


def test_a_register_is_not_believed_beyond_a_branch():
    text = ARM.replace("\tadrp\tx0, 0x1000 <__tvm_ffi_add+0x10>", "\tadrp\tx0, 0x1000\n     102:      \tb\t0x104")
    assert 0x1040 not in _owners(text)


def test_blocks_end_where_something_else_may_follow_and_where_branches_lead():
    code = parse_disassembly(ARM)
    counts = {0x118: 10, 0x11C: 10, 0x120: 10, 0x124: 1, 0x128: 1}
    blocks = code.blocks(counts)
    assert [[one.address for one in block.instructions] for block in blocks] == [[0x118, 0x11C, 0x120], [0x124, 0x128]]
    assert [(block.executions, block.executed) for block in blocks] == [(10, 30), (1, 2)]
    assert blocks[0].instructions[0].text == "ldp q0, q1, [x1], #32"
    assert blocks[0].instructions[2].target == 0x118


def test_branches_into_the_middle_cut_a_block_even_if_the_counts_agree():
    code = parse_disassembly(X86.replace("jb\t0x1040", "jb\t0x1045"))
    blocks = code.blocks({one.address: 3 for one in code.instructions})
    assert [block.instructions[0].address for block in blocks] == [0x1000, 0x100F, 0x1012, 0x1040, 0x1045, 0x104B]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([0x100, 0x104, 0x10C, 0x118, 0x11C, 0x120, 0x1040, 0x300]), st.integers(1, 9)))
def test_no_execution_is_lost_or_counted_twice(counts):
    code = parse_disassembly(ARM)
    blocks = code.blocks(counts)
    assert sum(block.executed for block in blocks) == sum(counts.values())


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdef:\t <>#,%()x\n", max_size=200))
def test_any_text_is_read_without_an_error(text):
    assert isinstance(parse_disassembly(text), MachineCode)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("ldp q0, q1, [x1], #32", 32),
        ("ldr q0, [x1]", 16),
        ("str s0, [x1]", 4),
        ("ldr x0, [sp, #8]", 8),
        ("ld1r { v10.2s }, [x6], #4", 8),
        ("ld1 { v0.16b, v1.16b }, [x0]", 32),
        ("ldrb w0, [x1]", 8),
        ("add x0, x1, x2", 0),
        ("vmovups 32(%rsi,%rax,4), %ymm1", 32),
        ("vpaddd (%rsi), %zmm1, %zmm2", 64),
        ("vbroadcastss (%rsi), %ymm1", 8),
        ("vmovss (%rsi), %xmm1", 8),
        ("movq %rax, 8(%rsp)", 8),
        ("leaq 8(%rsp), %rax", 0),
        ("vaddps %ymm0, %ymm1, %ymm2", 0),
        ("nopw (%rax,%rax)", 0),
        ("retq", 0),
    ],
)
def test_what_an_instruction_can_move(text, size):
    assert bytes_moved(text) == size
