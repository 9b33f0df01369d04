"""``edgeq-run`` where addresses have 32 bits: no size is cut off (whole models: test_every_target_slow.py)."""

import json
import subprocess

import pytest

from edgeq.reading import sha256
from edgeq.targets.builtin.target import load_target
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.toolchain.libedgeq import build_runner
from edgeq.targets.toolchain.linkers import find_linker

TARGET = load_target("cortex-a7")
NATIVE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72"}[this_machine().architecture]


@pytest.fixture(scope="module")
def runner(tmp_path_factory, needs):
    needs("armhf-emulator", "armhf-compiler")
    out = tmp_path_factory.mktemp("armv7") / "edgeq-run"
    flags = ("-Werror", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Wstrict-prototypes")
    build_runner(find_linker(TARGET), out, extra_flags=flags)
    return out


def _run(runner, *arguments):
    emulator = TARGET.emulator
    command = [emulator.program, *emulator.arguments, "-L", emulator.sysroot, str(runner), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_builds_without_a_warning_and_starts(runner):
    assert runner.read_bytes()[4] == 1, "not a 32-bit program"
    assert _run(runner, "--help").stdout.startswith("usage: edgeq-run BUNDLE")


def _file(manifest):
    manifest["files"]["weights.bin"]["bytes"] += 2**32
    return f"'bytes' is {manifest['files']['weights.bin']['bytes']}, which is not possible"


def _tensor(manifest):
    manifest["weights"][0]["bytes"] += 2**32
    return f"'bytes' is {manifest['weights'][0]['bytes']}, which is not possible"


def _offset(manifest):
    manifest["weights"][0]["offset"] += 2**32
    return f"'offset' is {manifest['weights'][0]['offset']}, which is not possible"


def _shape(manifest):
    manifest["weights"][0]["shape"] = [2**16, 2**16]
    return f"the shape of '{manifest['weights'][0]['name']}' is not possible"


def _dimension(manifest):
    manifest["weights"][0]["shape"][0] += 2**32
    return f"a size of '{manifest['weights'][0]['name']}' is neither a name nor a positive integer"


@pytest.mark.parametrize("change", [_file, _tensor, _offset, _shape, _dimension])
def test_sizes_beyond_32_bits_are_refused(runner, make_bundle, copy_of, change):
    """Each would be right again if its upper half were lost."""
    bundle = copy_of(make_bundle(NATIVE))
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["targets"][0]["cpu_flags"] = []  # sizes are what is looked at
    said = change(manifest)
    path.write_text(json.dumps(manifest))
    (bundle / "manifest.sha256").write_text(f"{sha256(path)}  manifest.json\n")
    result = _run(runner, bundle, "--self-test")
    assert result.returncode == 1
    assert said in result.stderr


def test_a_file_that_no_32_bit_memory_holds_is_a_sentence(runner, make_bundle, copy_of):
    bundle = copy_of(make_bundle(NATIVE))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["targets"][0]["cpu_flags"] = []
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / "manifest.sha256").write_text(f"{sha256(bundle / 'manifest.json')}  manifest.json\n")
    with (bundle / "weights.bin").open("r+b") as stream:
        stream.truncate(2**32 + stream.seek(0, 2))  # a hole: it takes no space
    result = _run(runner, bundle, "--self-test", "--no-verify")
    assert result.returncode == 1
    assert "weights.bin has 4294" in result.stderr


def test_the_processors_features_are_asked_for(runner, make_bundle, copy_of):
    """The emulated Cortex-A7 has NEON and VFPv4, a Cortex-A8 has no VFPv4."""
    bundle = copy_of(make_bundle(NATIVE))
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["targets"][0]["cpu_flags"] = list(TARGET.cpu_flags)
    path.write_text(json.dumps(manifest))
    (bundle / "manifest.sha256").write_text(f"{sha256(path)}  manifest.json\n")
    command = [TARGET.emulator.program, "-L", TARGET.emulator.sysroot]
    for core, lacks in [("cortex-a8", True), ("cortex-a7", False)]:
        arguments = ["-cpu", core, str(runner), str(bundle), "--self-test"]
        result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=120)
        assert ("this processor lacks its vfpv4" in result.stderr) is lacks, result.stderr
