"""The longest sequence that the tables of a graph allow."""

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeq.targets.compiler.limits import PositionLimit, position_limit
from edgeq.targets.compiler.passes.cache import TOKEN_POSITIONS

INT, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT


def _graph(nodes, rows=10, **constants):
    arrays = {"table": np.zeros((rows, 4), np.float32)} | {k: np.asarray(v, np.int64) for k, v in constants.items()}
    return helper.make_graph(
        [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("input_ids", INT, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )


LENGTH = [("Shape", ["input_ids"], "shape", {}), ("Gather", ["shape", "one"], "length", {})]


def test_positions_that_are_cut_from_a_constant():
    cut = ("Slice", ["positions", "zero", "ends", "one"], "cut", {})
    nodes = [*LENGTH, ("Unsqueeze", ["length", "zero"], "ends", {}), cut, ("Gather", ["table", "cut"], "y", {})]
    graph = _graph(nodes, positions=np.arange(7)[None], zero=[0], one=[1])
    assert position_limit(graph) == PositionLimit(7, 7, "positions")


@pytest.mark.parametrize(("offset", "longest"), [(0, 10), (2, 8)])
def test_positions_that_are_counted(offset, longest):
    nodes = [
        *LENGTH,
        ("Range", ["zero", "length", "one"], "range", {}),
        ("Add", ["range", "offset"], "places", {}),
        ("Gather", ["table", "places"], "y", {}),
    ]
    graph = _graph(nodes, zero=0, one=1, offset=offset)
    assert position_limit(graph) == PositionLimit(10, longest, "table")


def test_positions_over_the_tokens_that_are_not_padding():
    nodes = [
        ("Equal", ["input_ids", "one"], "padding", {}),
        ("Not", ["padding"], "kept", {}),
        ("Cast", ["kept"], "counted", {"to": INT}),
        ("CumSum", ["counted", "one"], "sum", {}),
        ("Mul", ["sum", "counted"], "product", {}),
        ("Add", ["product", "one"], "places", {}),
        ("Gather", ["table", "places"], "y", {}),
    ]
    assert position_limit(_graph(nodes, one=1)) == PositionLimit(10, 8, "table")


def test_positions_behind_a_cache():
    counted = (TOKEN_POSITIONS, ["input_ids", "past"], "places", {"offset": 2})
    nodes = [counted, ("Gather", ["table", "places"], "y", {})]
    assert position_limit(_graph(nodes, past=[0])) == PositionLimit(10, 8, "table")


def test_ids_and_constants_set_no_limit():
    nodes = [("Gather", ["table", "input_ids"], "a", {}), ("Gather", ["table", "two"], "y", {})]
    assert position_limit(_graph(nodes, two=[2])) is None


def test_rotary_positions_are_a_look_up():
    nodes = [
        *LENGTH,
        ("Range", ["zero", "length", "one"], "range", {}),
        ("RotaryEmbedding", ["x", "table", "table", "range"], "y", {"num_heads": 1}),
    ]
    assert position_limit(_graph(nodes, rows=9, zero=0, one=1)) == PositionLimit(9, 9, "table")
