"""Models whose matrices are decoded before ONNX Runtime runs them compute the same bits with less memory."""

import numpy as np
import onnx
import pytest

from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.export import decoded
from edgeq.export.decoded import open_decoded, write_decoded
from edgeq.models import positions

WIDE = 1100  # more columns than float32 adds up exactly with 8-bit codes


def feed_of(model, queries=5):
    ids = np.random.default_rng(queries).integers(5, 250, (2, queries))
    mask = np.ones_like(ids)
    feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask, queries=queries)}
    for value in model.graph.input:
        if value.name not in feed:
            sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feed[value.name] = np.zeros((2, sizes[1], 0, sizes[3]), kind)
    return feed


def assert_same_bits(path):
    feed = feed_of(onnx.load(path, load_external_data=False))
    want = OnnxRuntime(path)(feed)
    with open_decoded(path) as runtime:
        got = runtime(feed)
    assert want.keys() == got.keys()
    for name, array in want.items():
        assert np.array_equal(got[name], array), name


@pytest.mark.parametrize("recipe", ["ptq-w4", "ptq-w4a8", "ptq-w2e2a8", "ptq-w8a8"])
def test_the_bits_are_those_of_the_model(recipe, make_gpt2, exported):
    assert_same_bits(exported(make_gpt2, recipe) / "onnx" / "model.onnx")


def test_bodies_that_sum_in_float64(make_gpt2, exported):
    path = exported(make_gpt2, "ptq-w8a8", n_inner=WIDE) / "onnx" / "model.onnx"
    bodies = onnx.load(path, load_external_data=False).functions
    assert any("weights_wide" in node.output for body in bodies for node in body.node)
    assert_same_bits(path)


def test_matrices_are_decoded_into_a_file(make_gpt2, exported, tmp_path):
    model = onnx.load(exported(make_gpt2, "ptq-w4a8") / "onnx" / "model.onnx")
    matrices = {node.input[1] for node in model.graph.node if node.op_type == "LowBitLinear"}
    written = onnx.load(write_decoded(model, tmp_path), load_external_data=False)
    kept = {tensor.name: tensor for tensor in written.graph.initializer}
    tables = {node.input[1] for node in written.graph.node if node.op_type == "LowBitEmbedding"}
    assert matrices & kept.keys() == matrices & tables  # the output head is the table of the embedding
    for matrix in matrices:
        place = {entry.key: entry.value for entry in kept[f"{matrix}/decoded"].external_data}
        assert place["location"] == "decoded.bin"
        assert int(place["offset"]) % 4096 == 0
        assert int(place["length"]) == 4 * np.prod(kept[f"{matrix}/decoded"].dims)


def test_a_float_model_is_opened_as_it_is(make_gpt2, exported, monkeypatch):
    path = exported(make_gpt2, None) / "onnx" / "model.onnx"
    monkeypatch.setattr(decoded, "write_decoded", None)
    assert_same_bits(path)


def test_the_files_do_not_outlive_their_use(make_gpt2, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded.tempfile, "tempdir", str(tmp_path))
    with open_decoded(exported(make_gpt2, "ptq-w4a8") / "onnx" / "model.onnx"):
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
