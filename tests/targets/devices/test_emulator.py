"""ARM bundles under the emulator of their core: the same bits as here, and no illegal instruction."""

import dataclasses

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.digests import file_record
from edgeq.targets.runtime.manifest import read_manifest, write_manifest

CORES = ["cortex-a72", "cortex-a76"]


@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize("core", CORES)
def test_the_self_test_passes_under_the_cores_emulator(make_bundle, core):
    bundle = make_bundle(core)
    result = emulator.self_test(bundle)
    assert result.ok, result.detail
    assert core in emulator.where_it_runs(bundle)


@pytest.mark.needs("armhf-emulator", "armhf-compiler")
def test_the_self_test_passes_on_a_core_of_32_bits(make_bundle):
    result = emulator.self_test(make_bundle("cortex-a7"))
    assert result.ok, result.detail


@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize("core", CORES)
def test_outputs_are_bit_identical_to_this_machines(make_bundle, host_bundle, core):
    rng = np.random.default_rng(3)
    sets = []
    for batch, length in [(1, 1), (3, 17), (2, 40)]:
        ids = rng.integers(0, 23, (batch, length))
        sets.append(
            {"input_ids": ids, "attention_mask": (np.arange(length) < length - np.arange(batch)[:, None]) * 1}
        )
    host = edgeq.load(host_bundle)
    for threads in (1, 2):
        for given, found in zip(
            sets, emulator.run_many(make_bundle(core), sets, threads=threads), strict=True
        ):
            expected = host.run(given)
            assert list(found) == list(expected)
            np.testing.assert_array_equal(found["last_hidden_state"], expected["last_hidden_state"])


@pytest.mark.needs("arm64-emulator")
def test_inputs_with_a_default_may_be_left_out(make_bundle, host_bundle):
    ids = np.array([[2, 4, 3]])
    found = emulator.run_bundle(make_bundle("cortex-a72"), {"input_ids": ids})
    expected = edgeq.load(host_bundle)(input_ids=ids)
    np.testing.assert_array_equal(found["last_hidden_state"], expected["last_hidden_state"])


@pytest.mark.needs("arm64-emulator")
def test_wrong_inputs_are_refused_here(make_bundle):
    with pytest.raises(UsageError, match=r"holds 23; values lie in 0\.\.22"):
        emulator.run_bundle(make_bundle("cortex-a72"), {"input_ids": np.array([[23]])})


@pytest.mark.needs("arm64-emulator")
def test_a_changed_bit_fails_the_self_test_under_emulation(make_bundle, copy_of):
    bundle = copy_of(make_bundle("cortex-a72"))
    manifest = read_manifest(bundle)
    data = bytearray((bundle / "golden.bin").read_bytes())
    data[manifest.golden[0].outputs[0].offset] ^= 1
    (bundle / "golden.bin").write_bytes(data)
    with pytest.raises(FormatError, match=r"golden\.bin is damaged"):
        emulator.self_test(bundle)
    files = manifest.files | {"golden.bin": file_record(bundle / "golden.bin")}
    write_manifest(bundle, dataclasses.replace(manifest, files=files))
    result = emulator.self_test(bundle)
    assert not result.ok
    assert "1 of 216 output values differ" in result.detail


@pytest.mark.needs("arm64-emulator")
def test_code_for_a_newer_core_is_refused_by_the_older_one(make_bundle):
    """The runner reads the processor's capabilities before it opens any library."""
    with pytest.raises(EdgeqError, match="is for cortex-a76, and this processor lacks its asimddp"):
        emulator.run_bundle(
            make_bundle("cortex-a76"), {"input_ids": np.array([[2]])}, target=load_target("cortex-a72")
        )


@pytest.mark.needs("arm64-emulator")
def test_a_damaged_program_is_never_started(make_bundle, copy_of):
    bundle = copy_of(make_bundle("cortex-a72"))
    data = bytearray((bundle / "edgeq-run").read_bytes())
    data[100] ^= 1
    (bundle / "edgeq-run").write_bytes(data)
    with pytest.raises(FormatError, match="edgeq-run is damaged"):
        emulator.self_test(bundle)


def test_a_missing_emulator_is_named_with_its_package(make_bundle, monkeypatch, tmp_path):
    bundle = make_bundle("cortex-a72")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UnsupportedError, match=r"missing: qemu-aarch64-static[^)]*\); install it with `apt-get install qemu-user"
    ):
        emulator.run_bundle(bundle, {"input_ids": np.array([[2]])})


def test_a_missing_c_library_of_the_core_is_named(make_bundle, tmp_path):
    target = load_target("cortex-a72")
    bare = dataclasses.replace(target.emulator, sysroot=str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"missing: .*/lib\); install it with `apt-get install"):
        emulator.self_test(make_bundle("cortex-a72"), target=dataclasses.replace(target, emulator=bare))


def test_a_host_bundle_runs_here_without_an_emulator(host_bundle):
    assert emulator.where_it_runs(host_bundle) == "edgeq-run on this machine"
    assert emulator.self_test(host_bundle).ok
