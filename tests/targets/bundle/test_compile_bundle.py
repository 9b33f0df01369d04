"""The whole device side on a small BERT: exported model in, bundles out, the same bits on every core."""

import numpy as np
import pytest

import edgeq
from edgeq.errors import UsageError
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.writer import compile_bundle
from edgeq.targets.devices import emulator


@pytest.fixture(scope="module")
def onnx_folder(compressed_onnx):
    return compressed_onnx.parent


@pytest.fixture(scope="module")
def host(onnx_folder, tmp_path_factory):
    return compile_bundle(onnx_folder, tmp_path_factory.mktemp("bundles") / "host", target="host")  # by name, too


@pytest.fixture(scope="module", params=["cortex-a72", "cortex-a76"])
def arm(request, onnx_folder, host, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / request.param
    return compile_bundle(onnx_folder, out, target=load_target(request.param), host_bundle=host)


def _inputs(batch, length, vocabulary):
    rng = np.random.default_rng(batch * 100 + length)
    mask = (np.arange(length) < length - 2 * np.arange(batch)[:, None]).astype(np.int64)
    mask[:, 0] = 1
    return {
        "input_ids": rng.integers(0, vocabulary, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, (batch, length)),
    }


def test_the_host_bundle_knows_its_limits(host):
    bundle = edgeq.load(host)
    limits = {spec.name: (spec.maximum, spec.default) for spec in bundle.inputs}
    vocabulary = limits["input_ids"][0] + 1
    assert limits == {"input_ids": (vocabulary - 1, None), "attention_mask": (1, 1), "token_type_ids": (1, 0)}
    assert bundle.manifest.model.max_length == 37
    assert bundle.manifest.recipe["name"] == "ptq-w4a8"
    assert bundle.self_test().ok
    with pytest.raises(UsageError, match=f"values lie in 0..{vocabulary - 1}"):
        bundle(input_ids=np.array([[vocabulary]]))


def test_texts_give_embeddings(host):
    vectors = edgeq.load(host).encode(["the quick brown fox", "a cat"])
    assert vectors.shape == (2, 40)
    assert np.isfinite(vectors).all()


@pytest.mark.needs("arm64-emulator")
def test_arm_gives_the_bits_of_this_machine(arm, host):
    bundle = edgeq.load(host, threads=2)
    vocabulary = bundle.inputs[0].maximum + 1
    sets = [_inputs(batch, length, vocabulary) for batch, length in [(1, 1), (1, 37), (3, 11), (2, 16)]]
    for given, found in zip(sets, emulator.run_many(arm, sets), strict=True):
        for name, expected in bundle.run(given).items():
            np.testing.assert_array_equal(found[name], expected)
    assert emulator.self_test(arm).ok
