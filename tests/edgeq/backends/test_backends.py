"""The protocol of backends: named arrays in, named arrays out, several batches at once where a backend can."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeq.backends import run_all
from edgeq.backends.onnx_files import cache_type, load_model
from edgeq.backends.onnx_reference import OnnxReference
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.errors import EdgeqError, FormatError

NAMES = ("sum", "product")


@pytest.fixture
def model():
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("a", "b", *NAMES)]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    graph = helper.make_graph(nodes, "two", values[:2], values[2:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def feed(size):
    return {"a": np.arange(size, dtype=np.float32), "b": np.full(size, 3, np.float32)}


@pytest.mark.parametrize("make", [OnnxReference, lambda model: OnnxRuntime(model.SerializeToString())])
def test_onnx_backends_name_what_they_return(model, make):
    backend = make(model)
    for size in (1, 5):
        outputs = backend(feed(size))
        assert tuple(outputs) == NAMES
        np.testing.assert_array_equal(outputs["sum"], np.arange(size) + 3)
        np.testing.assert_array_equal(outputs["product"], np.arange(size) * 3)


def test_a_backend_that_takes_batches_at_once_is_called_once():
    class AtOnce:
        def __init__(self):
            self.calls = []

        def __call__(self, one):
            raise AssertionError("called for each batch")

        def run_all(self, feeds):
            self.calls.append(len(feeds))
            return [{"y": each["a"]} for each in feeds]

    backend, feeds = AtOnce(), [feed(2), feed(3)]
    assert [outputs["y"].size for outputs in run_all(backend, feeds)] == [2, 3]
    assert backend.calls == [2]
    assert [outputs["y"].size for outputs in run_all(lambda one: {"y": one["b"]}, feeds)] == [2, 3]


def test_what_onnx_runtime_says_is_one_sentence(model, tmp_path):
    with pytest.raises(FormatError, match=r"^ONNX Runtime does not load the model: [^\n]*$"):
        OnnxRuntime(b"no model")
    backend = OnnxRuntime(model.SerializeToString())
    with pytest.raises(EdgeqError, match=r"^ONNX Runtime cannot run the model: [^\n]*$"):
        backend({"a": np.zeros(2, np.int64), "b": np.zeros(2, np.float32)})
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(FormatError, match=r"model\.onnx is not a valid ONNX model"):
        load_model(tmp_path / "model.onnx")


def test_a_decoder_without_caches_is_refused(model):
    with pytest.raises(FormatError, match="float16, float32 or int8 caches"):
        cache_type(model)
    cache = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT16, ["b", 2, "n", 4])
    model.graph.input.append(cache)
    assert str(cache_type(model)) == "torch.float16"
