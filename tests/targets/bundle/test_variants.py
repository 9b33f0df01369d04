"""One bundle with code for several levels of processors: one weights.bin, and the same bits from each."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.writer import check_weights
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.machine import this_machine
from edgeq.targets.runtime.manifest import read_manifest

NATIVE = {"x86_64": "x86-64", "aarch64": "aarch64"}[this_machine().architecture]
PROMPTS = [[5, 80, 200, 17, 45, 6, 99, 3], [9], [(7 * i) % 283 for i in range(50)]]


@pytest.fixture(scope="module")
def path(gpt2_board):
    return gpt2_board(NATIVE)


def test_the_bundle_has_a_code_and_a_plan_for_each_level(path):
    names = [kind.name for kind in load_target(NATIVE).variants]
    manifest, table = read_manifest(path), json.loads((path / "manifest.json").read_text())
    assert manifest.name == NATIVE
    assert [target.name for target in manifest.targets] == names
    assert sorted(file.stem for file in (path / "code").iterdir()) == sorted(names)
    # Levels that sum products in other pieces keep other tensors between kernels.
    plans = manifest.functions["main"].plans
    assert sorted(plans) == sorted(target.code for target in manifest.targets)
    shared = all(plan == plans[manifest.targets[0].code] for plan in plans.values())
    assert ("plan" in table["functions"]["main"], "plans" in table["functions"]["main"]) == (shared, not shared)
    assert len(list(path.glob("*.bin"))) == 3  # weights, golden, tokenizer


def test_every_level_that_runs_here_gives_the_same_bits(path, gpt2_bundle):
    expected = edgeq.load(gpt2_bundle).generate(PROMPTS, max_new_tokens=20, ignore_end=True, keep_logits=True).results()
    here = [kind.name for kind in load_target(NATIVE).variants if kind.runs_on(this_machine())]
    assert here
    for name in here:
        bundle = edgeq.load(path, variant=name)
        assert bundle.model.variant == name
        assert bundle.self_test().ok
        found = bundle.generate(PROMPTS, max_new_tokens=20, ignore_end=True, keep_logits=True).results()
        for one, other in zip(found, expected, strict=True):
            assert one.ids == other.ids
            np.testing.assert_array_equal(one.logits, other.logits)
    assert edgeq.load(path).model.variant == here[0]
    assert emulator.self_test(path).ok


SMALL_SIGNAL_STACK = """
import ctypes, sys
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)  # Linux gives no tiles to a process whose signal stack cannot hold them
stack = Stack(ctypes.addressof(memory), 0, len(memory))
if ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) != 0:
    raise SystemExit("no signal stack")
import edgeq
from edgeq.targets.builtin.target import load_target
bundle = edgeq.load(sys.argv[1])
print(bundle.model.variant, load_target("host").isa, bundle.self_test().ok)
"""


def test_where_the_system_gives_no_tiles_the_next_level_is_taken(path):
    if not load_target("x86-64-amx").runs_on(this_machine()):
        pytest.skip("this processor lacks amx_int8")
    done = subprocess.run([sys.executable, "-c", SMALL_SIGNAL_STACK, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["x86-64-vnni", "avx512_vnni", "True"]), done.stderr


def test_a_level_that_the_bundle_or_the_processor_lacks_is_a_sentence(path):
    with pytest.raises(EdgeqError, match="pentium"):
        edgeq.load(path, variant="pentium")
    missing = [kind.name for kind in load_target(NATIVE).variants if not kind.runs_on(this_machine())]
    for name in missing:
        with pytest.raises(EdgeqError, match=name):
            edgeq.load(path, variant=name)


@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize(
    ("core", "chosen"), [("cortex-a53", "aarch64-neon"), ("cortex-a76", "aarch64-dotprod"), ("max", "aarch64-i8mm")]
)
def test_each_core_runs_the_best_code_that_it_can(make_bundle, copy_of, core, chosen):
    target = load_target("aarch64")
    target = dataclasses.replace(target, emulator=dataclasses.replace(target.emulator, arguments=("-cpu", core)))
    bundle = copy_of(make_bundle("aarch64"))
    assert emulator.self_test(bundle, target=target).ok
    names = [kind.name for kind in target.variants]
    for name in names:
        command = [*emulator._command(bundle, read_manifest(bundle), target), bundle, "--self-test", "--variant", name]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if names.index(name) >= names.index(chosen):
            assert (result.returncode, result.stderr) == (0, "")
        else:
            assert result.returncode == 1
            assert f"the bundle is for {name}, and this processor lacks its" in result.stderr
    # Unasked it takes that one: the others are no longer code.
    for kind in read_manifest(bundle).targets:
        if kind.name != chosen:
            (bundle / kind.code).write_bytes(bytes((bundle / kind.code).stat().st_size))
    command = [*emulator._command(bundle, read_manifest(bundle), target), bundle, "--self-test", "--no-verify"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_levels_that_need_other_weights_are_refused(compile_tiny):
    target = load_target("x86-64")
    one = compile_tiny(load_target("host"))
    other = dataclasses.replace(
        one, weights=[dataclasses.replace(weight, array=weight.array + 1) for weight in one.weights]
    )
    with pytest.raises(EdgeqError, match="needs tensor 'table' in another form"):
        check_weights([one, other, *[one] * (len(target.kinds) - 2)], target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[variants]]", "[[kinds]]"), "unknown key 'kinds'"),
        (('name = "aarch64-neon"', 'name = "aarch64-i8mm"'), "two variants have one name"),
        (('isa = "neon"', 'isa = "avx2"'), "belongs to x86_64"),
    ],
)
def test_a_wrong_target_file_is_a_sentence(tmp_path, change, message):
    from edgeq.targets.builtin import target as module

    text = (module._BUILTIN / "aarch64.toml").read_text().replace(*change)
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(FormatError, match=message):
        load_target(tmp_path / "own.toml")
    (tmp_path / "own.toml").write_text('name = "x"\nvariants = []\n')
    with pytest.raises(FormatError, match="'variants' must be tables"):
        load_target(tmp_path / "own.toml")
    with pytest.raises(UsageError, match="unknown target"):
        load_target("x86-65")
