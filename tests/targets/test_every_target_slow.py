"""A BERT and a GPT-2 for every built-in target: this machine's bits, on the very core where an emulator models it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError
from edgeq.targets.builtin import target as target_file
from edgeq.targets.builtin.target import list_targets, load_target
from edgeq.targets.devices import emulator
from edgeq.targets.runtime.manifest import read_manifest, write_manifest
from edgeq.targets.runtime.names import LIBRARY_FILE, RUNNER_FILE

pytestmark = pytest.mark.slow

NAMED = [summary.name for summary in list_targets() if summary.name != "host" and load_target(summary.name).loads_code]
VERY_CORE = ["cortex-a7", "cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"]
"""Cores that Debian's emulator models; others run on one that has every instruction."""
INT8_ATTENTION = "int8-attention"
RECIPES = ["ptq-w2a8", "ptq-w7a8", "ptq-w8a8", INT8_ATTENTION]
CORES_OF_AARCH64 = ["cortex-a53", "cortex-a76", "max"]
"""Emulated cores, each of which chooses another code of a bundle for ``aarch64``."""
LARGEST = {"bert": 600 << 10, "gpt2": 700 << 10}
"""Bytes of code, library and program for one kind of ARM processor with 64 bits."""
PROMPTS = [[5, 80, 200, 17], [9], [(7 * i) % 283 for i in range(70)]]


@pytest.fixture(scope="module")
def bert(float_checkpoint, tmp_path_factory):
    """Returns a function that gives the bundle of a BERT by recipe and target; each only once."""
    root, made = tmp_path_factory.mktemp("bert"), {}

    def make(recipe, target):
        if (recipe, target) in made:
            return made[recipe, target]
        folder, host = root / recipe, None
        if target == "host":
            edgeq.compress_model(float_checkpoint, folder / "checkpoint", recipe=_recipe_of(recipe, root))
            edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
        else:
            host = make(recipe, "host")
        out = folder / "bundles" / target
        made[recipe, target] = edgeq.compile_bundle(
            folder / "onnx", out, target=load_target(target), host_bundle=host
        )
        return made[recipe, target]

    return make


def _recipe_of(name: str, folder: Path) -> str | Path:
    if name != INT8_ATTENTION:
        return name
    file = folder / "recipe.toml"
    file.write_text('extends = "ptq-w8a8"\nname = "int8-attention"\n[activations]\nattention = "int8"\n')
    return file


def _check_size(board, model):
    """Everything native of a bundle, where it is for one kind of processor alone."""
    manifest = read_manifest(board)
    if manifest.targets[0].architecture != "aarch64" or len(manifest.targets) > 1:
        return
    native = [manifest.targets[0].code, RUNNER_FILE, LIBRARY_FILE]
    assert sum((board / name).stat().st_size for name in native) <= LARGEST[model]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NAMED)
def test_a_bert_gives_the_bits_of_this_machine(bert, name, recipe, needs_core):
    needs_core(name)
    board, host = bert(recipe, name), edgeq.load(bert(recipe, "host"))
    _check_size(board, "bert")
    assert emulator.self_test(board).ok
    assert name not in VERY_CORE or f"-cpu {name}" in emulator.where_it_runs(board)
    chance = np.random.default_rng(5)
    sets = [{"input_ids": chance.integers(0, 80, (batch, length))} for batch, length in [(1, 1), (1, 2), (3, 37)]]
    for threads in (1, 2):
        for given, found in zip(sets, emulator.run_many(board, sets, threads=threads), strict=True):
            for output, expected in host.run(given).items():
                np.testing.assert_array_equal(found[output], expected, err_msg=f"{output}, {threads} threads")


@pytest.mark.parametrize("name", NAMED)
def test_a_gpt2_makes_the_tokens_of_this_machine(gpt2_board, gpt2_bundle, name, needs_core):
    needs_core(name)
    board = gpt2_board(name)
    _check_size(board, "gpt2")
    assert emulator.self_test(board).ok
    expected = edgeq.load(gpt2_bundle).generate(PROMPTS, max_new_tokens=20, ignore_end=True).results()
    found = emulator.generate(board, PROMPTS, max_new_tokens=20, ignore_end=True, batch=2)
    assert found == [result.ids for result in expected]


@pytest.mark.needs("arm64-emulator")
@pytest.mark.parametrize("core", CORES_OF_AARCH64)
def test_one_bundle_gives_the_same_bits_on_each_core(bert, gpt2_board, gpt2_bundle, core):
    target = load_target("aarch64")
    target = dataclasses.replace(target, emulator=dataclasses.replace(target.emulator, arguments=("-cpu", core)))
    board, host = bert("ptq-w8a8", "aarch64"), edgeq.load(bert("ptq-w8a8", "host"))
    assert emulator.self_test(board, target=target).ok
    given = {"input_ids": np.random.default_rng(5).integers(0, 80, (3, 37))}
    found = emulator.run_bundle(board, given, target=target)
    for output, expected in host.run(given).items():
        np.testing.assert_array_equal(found[output], expected)
    expected = edgeq.load(gpt2_bundle).generate(PROMPTS, max_new_tokens=20, ignore_end=True).results()
    found = emulator.generate(gpt2_board("aarch64"), PROMPTS, max_new_tokens=20, ignore_end=True, target=target)
    assert found == [result.ids for result in expected]


@pytest.mark.needs("arm64-emulator")
def test_the_emulator_stops_on_an_instruction_that_the_core_lacks(bert, copy_of):
    """The runner's own check is taken out: what stops here is the emulated core, at the first ``sdot``."""
    bundle = copy_of(bert("ptq-w8a8", "cortex-a76"))
    manifest = read_manifest(bundle)
    unguarded = dataclasses.replace(manifest.targets[0], cpu_flags=())
    write_manifest(bundle, dataclasses.replace(manifest, targets=(unguarded,)))
    given = {"input_ids": np.array([[3, 4, 5]])}
    assert emulator.run_bundle(bundle, given, target=load_target("cortex-a76"))
    with pytest.raises(EdgeqError, match=r"(?i)illegal instruction|code -4"):
        emulator.run_bundle(bundle, given, target=load_target("cortex-a72"))


@pytest.mark.needs("arm64-emulator")
def test_a_users_own_target_works_by_path(bert, tmp_path):
    own = tmp_path / "my-board.toml"
    builtin = Path(target_file.__file__).with_name("cortex-a72.toml")
    own.write_text(builtin.read_text().replace('"cortex-a72"', '"my-board"', 1))
    target, host = load_target(own), bert("ptq-w2a8", "host")
    out = edgeq.compile_bundle(host.parents[1] / "onnx", tmp_path / "bundle", target=target, host_bundle=host)
    assert read_manifest(out).name == "my-board"
    assert emulator.self_test(out, target=target).ok
