"""Multiply-adds that are counted from a run: matrix products in every form that exported models have."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.factors.multiply_adds import count_multiply_adds


def saved(folder, nodes, inputs, constants=None):
    """Writes a model of these nodes; inputs are shapes by name."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (constants or {}).items()]
    graph = helper.make_graph(nodes, "one", given, made, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "expected"),
    [
        ("MatMul", {"a": [2, 3, 5], "b": [5, 7]}, {}, 2 * 3 * 5 * 7),
        ("MatMul", {"a": [1, 4, 3, 5], "b": [1, 4, 5, 2]}, {}, 4 * 3 * 5 * 2),
        ("Gemm", {"a": [3, 5], "b": [7, 5]}, {"transB": 1}, 3 * 5 * 7),
        ("Gemm", {"a": [5, 3], "b": [5, 7]}, {"transA": 1}, 3 * 5 * 7),
        ("Attention", {"q": [1, 2, 3, 8], "k": [1, 2, 5, 8], "v": [1, 2, 5, 8]}, {}, 2 * 2 * 3 * 5 * 8),
        ("Add", {"a": [3, 5], "b": [3, 5]}, {}, 0),
    ],
)
def test_each_form_of_a_product(tmp_path, operator, inputs, attributes, expected):
    file = saved(tmp_path, [helper.make_node(operator, list(inputs), ["y"], **attributes)], inputs)
    assert count_multiply_adds(file, lambda entry: np.ones(entry.shape, np.float32)) == expected


def test_what_depends_on_no_input_does_not_count(tmp_path):
    nodes = [helper.make_node("MatMul", ["p", "c"], ["mixed"]), helper.make_node("MatMul", ["x", "mixed"], ["y"])]
    file = saved(tmp_path, nodes, {"x": [2, 6]}, {"p": (6, 30), "c": (30, 4)})
    assert count_multiply_adds(file, lambda entry: np.ones(entry.shape, np.float32)) == 2 * 6 * 4
