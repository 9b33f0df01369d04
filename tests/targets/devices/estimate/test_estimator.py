"""Estimates of bundles: counted in the emulator, modelled by LLVM, and named what they are."""

import dataclasses
import json
from pathlib import Path

import pytest

from edgeq.cli.main import main
from edgeq.errors import EdgeqError, FormatError, UnsupportedError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.tensor_sets import call_of_main
from edgeq.targets.devices.estimate import emulation, processor_model, tools
from edgeq.targets.devices.estimate.disassembler import disassemble
from edgeq.targets.devices.estimate.estimator import estimate_bundle
from edgeq.targets.devices.estimate.machine_code import Block, Instruction
from edgeq.targets.devices.workload import made_up_texts
from edgeq.targets.runtime.manifest import read_manifest


def _block(*texts, executions=1):
    return Block(tuple(Instruction(4 * at, text) for at, text in enumerate(texts)), executions, "k")


@pytest.mark.needs("llvm-mca")
def test_the_model_of_a_pipeline_knows_latency_and_throughput(tmp_path):
    llvm = tools.find_llvm()
    blocks = [
        _block(*["imulq %rax, %rax"] * 10),  # each waits three cycles for the one before
        _block(*[f"addq $1, %r{8 + at % 8}" for at in range(16)]),  # four at a time
        dataclasses.replace(_block("callq 0x123456"), instructions=(Instruction(0, "callq 0x123456", is_call=True),)),
    ]
    cycles = processor_model.cycles_of_blocks(
        blocks, program=llvm.mca, triple="x86_64-linux-gnu", cpu="haswell", folder=tmp_path
    )
    assert cycles[0] == pytest.approx(30, rel=0.05)
    assert cycles[1] == pytest.approx(4, rel=0.15)
    assert cycles[2] < 1.5


@pytest.mark.needs("llvm-mca")
def test_branches_too_far_for_their_instruction_are_modelled(tmp_path):
    llvm = tools.find_llvm()
    far = Instruction(0x100000, "tbz w0, #3, 0x180000", ends_block=True, target=0x180000)
    block = dataclasses.replace(_block("add x0, x0, #1"), instructions=(Instruction(0, "add x0, x0, #1"), far))
    options = {"program": llvm.mca, "triple": "aarch64-linux-gnu", "cpu": "cortex-a72", "folder": tmp_path}
    assert 0 < processor_model.cycles_of_blocks([block], **options)[0] < 5
    with pytest.raises(EdgeqError, match="has no answer for cortex-a72"):
        processor_model.cycles_of_blocks([_block("no such instruction")], **options)


def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    with monkeypatch.context() as context:
        context.setenv("PATH", "/nowhere")
        with pytest.raises(EdgeqError, match="apt-get install llvm"):
            tools.find_llvm()
        with pytest.raises(EdgeqError, match="apt-get install"):
            emulation.emulator_command(load_target("cortex-a72"))
    with pytest.raises(UnsupportedError, match="no avx512_vnni; measure"):
        emulation.emulator_command(load_target("x86-64-vnni"))
    with pytest.raises(UnsupportedError, match="knows x86_64, aarch64, armv7, not riscv64; measure the bundle on"):
        emulation.emulator_command(load_target("riscv64"))


def test_the_newest_llvm_is_taken(tmp_path, monkeypatch):
    both = [f"{tool}{version}" for tool in ("llvm-mca", "llvm-objdump") for version in ("", "-9", "-15")]
    for name in (*both, "llvm-mca-18"):  # without its disassembler
        (tmp_path / name).write_text("#!/bin/sh\necho LLVM version 7.7\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(tools, "_programs", lambda: {path.name for path in tmp_path.iterdir()})
    found = tools.find_llvm()
    assert (found.mca, found.objdump) == (str(tmp_path / "llvm-mca-15"), str(tmp_path / "llvm-objdump-15"))
    assert found.version == "LLVM 7.7"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gigahertz": "0"}, "'gigahertz' must be a number above 0"),
        ({"gigahertz": "nan"}, "'gigahertz' must be a number above 0, found nan"),
        ({"gigabytes_per_second": None}, "'gigabytes_per_second' must be a number above 0, found None"),
        ({"core_cache_megabytes": "1"}, "'cache_gigabytes_per_second' must be a number above 0, found None"),
        ({"cache_gigabytes_per_second": "1"}, "'core_cache_megabytes' must be a number above 0, found None"),
        ({"cache_megabytes": "true"}, "'cache_megabytes' must be a number above 0, found True"),
        ({"model": "1"}, "'model' must be a string"),
        ({"ghz": "1"}, "unknown key 'ghz'"),
    ],
)
def test_target_files_are_checked(tmp_path, changed, message):
    plain = (Path(__file__).parents[4] / "targets/builtin/cortex-a72.toml").read_text().split("[estimate]")[0]
    table = {"model": "'x'", "gigahertz": "1", "gigabytes_per_second": "1.5", "cache_megabytes": "0.5"} | changed
    lines = [f"{key} = {value}" for key, value in table.items() if value is not None]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join([plain, "[estimate]", *lines]))
    with pytest.raises(FormatError, match=message):
        load_target(path)


def test_weights_come_from_the_nearest_cache_that_holds_all_of_them(tmp_path):
    plain = (Path(__file__).parents[4] / "targets/builtin/cortex-a72.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(plain + "core_cache_megabytes = 0.25\ncache_gigabytes_per_second = 9.0\n")
    shared, own = load_target(path).estimate, load_target("cortex-a72").estimate
    sizes = (200_000, 900_000, 2_000_000)
    assert [shared.weights_gigabytes_per_second(size) for size in sizes] == [None, 9.0, 4.0]
    assert [own.weights_gigabytes_per_second(size) for size in sizes] == [None, None, 4.0]


@pytest.mark.slow
@pytest.mark.needs("llvm-mca", "arm64-counter")
def test_a_bundle_is_estimated_and_the_command_line_says_that_it_is_one(make_bundle, capsys):
    bundle = make_bundle("cortex-a72")
    short = estimate_bundle(bundle, sequence=4)
    long = estimate_bundle(bundle, sequence=36)
    by_name = {kernel.name: kernel for kernel in long.kernels}
    product = by_name["matmul"]
    assert product.calls == 1
    assert product.instructions > 3 * next(k for k in short.kernels if k.name == "matmul").instructions
    assert product.bytes == 0  # 576 bytes of weights stay in any cache, unless there is none
    target = load_target("cortex-a72")
    bare = dataclasses.replace(target, estimate=dataclasses.replace(target.estimate, cache_megabytes=1e-6))
    assert {k.name: k.bytes for k in estimate_bundle(bundle, target=bare, sequence=36).kernels}["matmul"] == 12 * 12 * 4
    assert long.seconds > short.seconds > 0
    assert sum(kernel.share for kernel in long.kernels) == pytest.approx(1)
    assert main(["estimate", str(bundle), "--sequence", "8"]) == 0
    assert "ESTIMATE (not measured)" in capsys.readouterr().out
    assert main(["estimate", str(bundle), "--sequence", "8", "--json", "--target", "cortex-a53"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["kind"], table["target"], table["compiled_for"]) == ("estimate", "cortex-a53", "cortex-a72")


@pytest.mark.slow
def test_what_cannot_be_estimated_is_refused(make_bundle, host_bundle, tmp_path):
    bundle = make_bundle("cortex-a72")
    with pytest.raises(UnsupportedError, match="x86-64-v3 is another architecture; compile it for x86-64-v3"):
        estimate_bundle(bundle, target=load_target("x86-64-v3"))
    bare = dataclasses.replace(load_target("cortex-a72"), estimate=None)
    with pytest.raises(UnsupportedError, match=r"no \[estimate\] table"):
        estimate_bundle(bundle, target=bare)
    with pytest.raises(UnsupportedError, match=r"target host has no \[estimate\] table"):
        estimate_bundle(host_bundle, target=load_target("host"))


@pytest.mark.slow
@pytest.mark.needs("llvm-mca", "arm64-counter")
def test_counted_dot_products_are_those_of_the_matrices(gpt2_board):
    """An independent count: a product of M x K by K x N takes M N K multiplications, whatever the loops look like."""
    folder, target = gpt2_board("cortex-a76"), load_target("cortex-a76")
    manifest = read_manifest(folder)
    texts = made_up_texts(manifest, folder, batch=1, sequence=40)
    emulated = emulation.emulate(folder, manifest, call_of_main(texts.inputs, manifest), target=target)
    objdump = tools.find_llvm().objdump
    code = disassemble(folder / read_manifest(folder).targets[0].code, program=objdump, target=target)
    counts = emulation.counts_by_address(emulated, code)
    calls = {kernel["name"]: kernel["calls"] for kernel in emulated.kernels}
    checked = 0
    for kernel in sorted({block.kernel for block in code.blocks(counts)}):
        if not kernel.startswith("low_bit_matmul_"):
            continue
        rows, columns = (int(size) for size in kernel.split("_")[3].split("x"))
        # Whole vectors of four outputs, whole pieces of eight 4-bit codes.
        padded = -(-rows // 4) * 4 * (-(-columns // 8) * 8)
        executed = sum(
            block.executions * sum(one.text.startswith("sdot") for one in block.instructions)
            for block in code.blocks(counts)
            if block.kernel == kernel
        )
        assert executed * 16 == calls[kernel] * padded
        checked += 1
    assert checked >= 3
