from pathlib import Path

import pytest

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.targets.builtin.target import ISAS, host_target, library_level, list_targets, load_target
from edgeq.targets.runtime.machine import machine_from_cpuinfo, normalised_architecture

BUILTIN = [
    "host",
    "aarch64",
    "android-arm64",
    "cortex-a53",
    "cortex-a7",
    "cortex-a72",
    "cortex-a76",
    "macos-arm64",
    "macos-x86-64",
    "neoverse-n1",
    "neoverse-v1",
    "riscv64",
    "windows-x86-64",
    "x86-64",
    "x86-64-amx",
    "x86-64-avxvnni",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "x86-64-vnni",
]
V3 = "avx avx2 bmi1 bmi2 f16c fma abm movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


def test_every_builtin_target_is_listed_and_makes_sense():
    assert [summary.name for summary in list_targets()] == BUILTIN
    for summary in list_targets():
        target = load_target(summary.name)
        assert target.name == summary.name
        assert ISAS[target.isa] in ("", target.architecture)
        assert summary.summary
        # What is said of it is what the tests of bundles and of sources do.
        assert target.run in ("natively", "emulator", "wine", "built only")
        assert target.loads_code or target.run != "natively"
        assert target.run != "emulator" or target.emulator is not None or target.system == "android"


def test_tvm_accepts_every_target():
    from edgeq.targets.compiler.tvm_import import import_tvm

    tvm = import_tvm()
    for name in BUILTIN:
        target = load_target(name)
        assert tvm.target.Target(target.tvm_target).attrs["mcpu"] == target.cpu


def test_a_32_bit_target_passes_floats_in_float_registers():
    assert load_target("cortex-a7").tvm_target["mfloat-abi"] == "hard"
    assert "mfloat-abi" not in load_target("cortex-a72").tvm_target


def test_a_kernel_that_names_its_architecture_otherwise_is_understood():
    machine = machine_from_cpuinfo("Features : half thumb neon vfpv4\n", normalised_architecture("armv7l"))
    assert load_target("cortex-a7").runs_on(machine)
    assert normalised_architecture("armv8l") == "armv7"


def test_unknown_target_names_the_nearest():
    with pytest.raises(UsageError, match=r"'cortex-a75'; did you mean 'cortex-a7[26]?'"):
        load_target("cortex-a75")


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("ssse3 sse4_1", "sse41"),
        (V3, "avx2"),
        (f"{V3} avx_vnni", "avx_vnni"),
        (V4, "avx512bw"),
        (f"{V4} avx512_vnni avx_vnni", "avx512_vnni"),
        (f"{V4} avx512_vnni avx_vnni amx_tile", "avx512_vnni"),
        (f"{V4} avx512_vnni avx_vnni amx_bf16 amx_tile amx_int8", "amx_int8"),
    ],
)
def test_host_takes_the_best_instruction_set_that_the_processor_has(flags, isa):
    machine = machine_from_cpuinfo(f"model name : X\nflags : {flags}\n", "x86_64")
    assert host_target(machine).isa == isa


def test_the_operator_library_has_a_level_of_its_own():
    tiles = machine_from_cpuinfo(f"flags : {V4} avx512_vnni amx_tile amx_int8\n", "x86_64")
    assert library_level(tiles).isa == "avx512_vnni"  # kernels for matrices of any size use no tiles
    with pytest.raises(UnsupportedError, match=r"none of the instruction sets .*avx2"):
        library_level(machine_from_cpuinfo("flags : ssse3 sse4_1\n", "x86_64"))


def test_host_counts_only_what_every_core_has():
    text = "Features : fp asimd asimddp\n\nFeatures : fp asimd\n"
    assert host_target(machine_from_cpuinfo(text, "aarch64")).isa == "neon"


def test_host_without_kernels_is_refused_in_a_sentence():
    with pytest.raises(UnsupportedError, match=r"neither SSE4\.1 nor NEON"):
        host_target(machine_from_cpuinfo("flags : sse2\n", "x86_64"))
    with pytest.raises(UnsupportedError, match="mips64"):
        host_target(machine_from_cpuinfo("", "mips64"))


def test_host_is_any_riscv_machine():
    target = host_target(machine_from_cpuinfo("hart : 0\nisa : rv64imafdc_zicsr\n", "riscv64"))
    assert (target.isa, target.tvm_target["mabi"]) == ("portable", "lp64d")


def _write(folder: Path, **changes: str | None) -> Path:
    fields = {
        "name": '"my-board"',
        "summary": '"a board"',
        "triple": '"aarch64-linux-gnu"',
        "cpu": '"cortex-a55"',
        "features": '["+neon"]',
        "isa": '"neon"',
        "linker": '"auto"',
        "cpu_flags": '["asimd"]',
        **changes,
    }
    path = folder / "board.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None))
    return path


def test_a_user_adds_a_target_with_a_file(tmp_path):
    target = load_target(_write(tmp_path))
    assert (target.name, target.cpu, target.emulator) == ("my-board", "cortex-a55", None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"isas": '"neon"'}, FormatError, r"unknown key 'isas'; did you mean 'isa'"),
        ({"cpu": None}, FormatError, "'cpu' is missing"),
        ({"features": '"+neon"'}, FormatError, "'features' must be a list of strings"),
        ({"isa": '"neo"'}, UnsupportedError, "no kernels for isa 'neo'; did you mean 'neon'"),
        ({"isa": '"avx2"'}, FormatError, "belongs to x86_64"),
        ({"linker": '"ld"'}, FormatError, "linker must be one of"),
        ({"name": '"host"'}, FormatError, "not 'host'"),
        ({"name": '"../up"'}, FormatError, "letters and digits"),
        ({"emulator": "3"}, FormatError, "'emulator' must be a table"),
        ({"name": "="}, FormatError, "not valid TOML"),
    ],
)
def test_a_wrong_target_file_is_named_with_its_mistake(tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        load_target(_write(tmp_path, **changes))
    assert "board.toml" in str(caught.value)


def test_a_missing_or_binary_target_file_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="cannot read target file"):
        load_target(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not UTF-8 text"):
        load_target(tmp_path / "binary.toml")
