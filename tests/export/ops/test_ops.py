"""The operators mean the same in numpy, in standard operators, and to two runtimes, bit for bit."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.ops import OPERATORS, attach_bodies
from edgeq.export.ops.low_bit_linear import quantize_activation, sums_exactly_in_float32
from edgeq.formats.low_bit import OP_DOMAIN, ZERO_POINTS, PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.rounding import quantize_dynamic

ROWS, COLUMNS = 37, 53
GRIDS = [(bits, zero_point) for bits, zero_points in ZERO_POINTS.items() for zero_point in zero_points]


def make_model(*, bits, zero_point, activation, scales, opset=18, rows=ROWS, columns=COLUMNS, codes=None, seed=0):
    """A model with one LowBitLinear and one LowBitEmbedding on the same packed matrix."""
    random = np.random.default_rng(seed)
    low, high = levels(bits, zero_point)
    codes = random.integers(low, high + 1, (rows, columns)) if codes is None else codes
    constants = {
        "W": pack(codes, bits),
        "s": (random.random(rows if scales == "row" else 1) + 0.1).astype(np.float32),
        "b": random.standard_normal(rows).astype(np.float32),
    }
    if activation == "static":
        constants["a"] = np.array([0.03], np.float32)
    attributes = {"N": rows, "K": columns, "bits": bits, "zero_point": zero_point}
    linear = helper.make_node(
        "LowBitLinear",
        ["x", *constants],
        ["y"],
        name="linear",
        domain=OP_DOMAIN,
        activation=activation,
        **attributes,
    )
    embedding = helper.make_node("LowBitEmbedding", ["ids", "W", "s"], ["z"], domain=OP_DOMAIN, **attributes)
    graph = helper.make_graph(
        [linear, embedding],
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", columns]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", rows]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", "sequence", columns]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(OP_DOMAIN, 1)], ir_version=10
    )
    return model, constants, attributes


def expected(model_parts, x, ids, activation):
    _, constants, attributes = model_parts
    y = OPERATORS["LowBitLinear"].reference(x, *constants.values(), activation=activation, **attributes)
    z = OPERATORS["LowBitEmbedding"].reference(ids, constants["W"], constants["s"], **attributes)
    return y, z


@pytest.mark.parametrize("scales", ["row", "matrix"])
@pytest.mark.parametrize("activation", ["none", "dynamic", "static"])
@pytest.mark.parametrize(("bits", "zero_point"), GRIDS)
def test_bodies_mean_what_numpy_says(bits, zero_point, activation, scales):
    parts = make_model(
        bits=bits, zero_point=zero_point, activation=activation, scales=scales, opset=18 + bits % 6, seed=bits
    )
    model = parts[0]
    attach_bodies(model)
    onnx.checker.check_model(model, full_check=True)
    random = np.random.default_rng(1)
    x = (random.standard_normal((2, 5, COLUMNS)) * 3).astype(np.float32)
    x[0, 0] = 0  # a row of zeros has no scale of its own
    ids = random.integers(0, ROWS, (2, 5))
    y, z = expected(parts, x, ids, activation)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for got_y, got_z in (
        session.run(None, {"x": x, "ids": ids}),
        ReferenceEvaluator(model).run(None, {"x": x, "ids": ids}),
    ):
        assert got_z.tobytes() == z.tobytes()
        if activation == "none":  # a float sum: its order is the runtime's own
            magnitude = np.abs(x).sum(-1, keepdims=True) * 2**bits * parts[1]["s"]
            assert np.all(np.abs(got_y - y) <= COLUMNS * 2**-23 * magnitude)
        else:
            assert got_y.tobytes() == y.tobytes()


def test_rounds_half_to_even_and_multiplies_by_the_inverse():
    x = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -126.5]], np.float32)
    q, scale = quantize_activation(x)
    assert q.tolist() == [[127, 0, 2, 2, 0, -126]]
    assert scale.tolist() == [[1.0]]
    # Over 1000 random rows the product with the inverse differs from the quotient somewhere.
    rows = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    peak = np.abs(rows).max(1, keepdims=True)
    q, _ = quantize_activation(rows)
    assert np.array_equal(q, np.rint(rows * (np.float32(127) / peak)))


@settings(max_examples=25, deadline=None)
@given(
    grid=st.sampled_from(GRIDS),
    rows=st.integers(1, 40),
    columns=st.integers(1, 80),
    batch=st.integers(1, 3),
    length=st.integers(1, 6),
)
def test_bodies_hold_at_every_size(grid, rows, columns, batch, length):
    bits, zero_point = grid
    parts = make_model(bits=bits, zero_point=zero_point, activation="dynamic", scales="row", rows=rows, columns=columns)
    attach_bodies(parts[0])
    random = np.random.default_rng(rows * 1000 + columns)
    x = random.standard_normal((batch, length, columns)).astype(np.float32)
    ids = random.integers(0, rows, (batch, length))
    got = ReferenceEvaluator(parts[0]).run(None, {"x": x, "ids": ids})
    for mine, theirs in zip(expected(parts, x, ids, "dynamic"), got, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_torch_quantizes_by_the_same_bits():
    # Values as near to a rounding edge as float32 allows: an inverse that is one ulp off falls on the other side.
    peak = np.random.default_rng(0).random((500, 1)).astype(np.float32) + np.float32(0.1)
    edges = np.arange(-126.5, 127, dtype=np.float32) / np.float32(127) * peak
    x = np.concatenate([peak, edges], axis=1)
    q, scale = quantize_activation(x)
    torch_q, torch_scale = quantize_dynamic(torch.from_numpy(x))
    assert torch_q.numpy().tobytes() == q.tobytes()
    assert torch_scale.numpy().tobytes() == scale.tobytes()


@pytest.mark.parametrize("columns", [1032, 1033, 1600])
def test_sums_stay_exact_where_float32_would_round(columns):
    codes = np.full((16, columns), 255)
    codes[1] = 1
    codes[:, 0] = 130  # makes the sum odd: beyond 2**24, float32 holds only even numbers
    parts = make_model(
        bits=8, zero_point=128.0, activation="dynamic", scales="row", rows=16, columns=columns, codes=codes
    )
    model = parts[0]
    attach_bodies(model)
    casts = [node.attribute[0].i for function in model.functions for node in function.node if node.op_type == "Cast"]
    assert (TensorProto.DOUBLE in casts) == (columns > 1032)
    x, ids = np.ones((1, 2, columns), np.float32), np.zeros((1, 2), np.int64)
    x[0, 1, 1] = -1
    y, _ = expected(parts, x, ids, "dynamic")
    got, _ = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x, "ids": ids})
    assert got.tobytes() == y.tobytes()
    total = (127 * (columns - 1) + 2) * 127
    scale = parts[1]["s"][0] * (np.float32(1) / np.float32(127))
    assert y[0, 0, 0] == np.float32(total) * scale + parts[1]["b"][0]


def test_half_integer_levels_count_as_steps_of_a_half():
    assert sums_exactly_in_float32(PackedMatrix(1, 2**24 // 127, 1, 0.5, 1))
    assert not sums_exactly_in_float32(PackedMatrix(1, 2**24 // 127 + 1, 1, 0.5, 1))


def test_functions_are_sorted_and_attached_once():
    model, _, _ = make_model(bits=2, zero_point=1.0, activation="dynamic", scales="row")
    names = ["LowBitEmbedding", "LowBitLinear"]
    assert attach_bodies(model) == names
    assert attach_bodies(model) == names
    assert [(function.name, function.overload) for function in model.functions] == [(name, "") for name in names]
    assert [entry.version for entry in model.opset_import if entry.domain == OP_DOMAIN] == [1]


def merged(first, second):
    """Both models side by side: the second one's names get a prefix."""
    model = onnx.compose.merge_models(first, onnx.compose.add_prefix(second, "other_"), io_map=[])
    model.ir_version = 10
    return model


def test_one_body_serves_every_number_of_bits():
    """Runtimes that take no notice of overloads would run one function for all nodes."""
    models = [make_model(bits=bits, zero_point=zero, activation="dynamic", scales="row") for bits, zero in GRIDS]
    model = models[0][0]
    for index, other in enumerate(models[1:]):
        model = merged(model, onnx.compose.add_prefix(other[0], f"{index}_"))
    assert attach_bodies(model) == ["LowBitEmbedding", "LowBitLinear"]
    random = np.random.default_rng(0)
    x, ids = random.standard_normal((2, 3, COLUMNS)).astype(np.float32), random.integers(0, ROWS, (2, 3))
    feed = {value.name: x if value.name.endswith("x") else ids for value in model.graph.input}
    want = [array.tobytes() for parts in models for array in expected(parts, x, ids, "dynamic")]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [array.tobytes() for array in session.run(None, feed)] == want
    assert [array.tobytes() for array in ReferenceEvaluator(model).run(None, feed)] == want


def test_only_mixed_activations_need_overloads():
    dynamic = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    none = make_model(bits=4, zero_point=8.0, activation="none", scales="row", seed=1)
    model = merged(dynamic[0], none[0])
    assert attach_bodies(model) == ["LowBitEmbedding", "LowBitLinear:dynamic", "LowBitLinear:none"]
    onnx.checker.check_model(model, full_check=True)
    assert [node.overload for node in model.graph.node if node.op_type == "LowBitLinear"] == ["dynamic", "none"]


def test_shape_inference_keeps_symbolic_dimensions():
    model, _, _ = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    attach_bodies(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    shape = inferred.graph.output[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", "sequence", ROWS]


@pytest.mark.parametrize("wrong", ["width", "packed"])
def test_shape_inference_refuses_contradictions(wrong):
    model, constants, _ = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    if wrong == "width":
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = COLUMNS + 1
    else:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(constants["W"][:-1], "W"))
    attach_bodies(model)
    with pytest.raises(Exception, match=r"found|width"):
        onnx.checker.check_model(model, full_check=True)


def test_malformed_nodes_are_refused_by_name():
    model, _, _ = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    model.graph.node[0].input[2] = "x"
    with pytest.raises(FormatError, match="node linear must be an initializer"):
        attach_bodies(model)
    model, _, _ = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    next(a for a in model.graph.node[0].attribute if a.name == "bits").i = 3
    with pytest.raises(FormatError, match="node linear: bits must be one of"):
        attach_bodies(model)
    model, _, _ = make_model(bits=4, zero_point=8.0, activation="sometimes", scales="row")
    with pytest.raises(FormatError, match="sometimes"):
        attach_bodies(model)
    model.graph.node[0].op_type = "LowBitConvolution"
    with pytest.raises(UnsupportedError, match="LowBitConvolution"):
        attach_bodies(model)


def test_numpy_reference_refuses_a_scale_that_its_activation_does_not_take():
    _, constants, attributes = make_model(bits=4, zero_point=8.0, activation="dynamic", scales="row")
    x = np.ones((1, COLUMNS), np.float32)
    reference = OPERATORS["LowBitLinear"].reference
    with pytest.raises(FormatError, match="static"):
        reference(x, *constants.values(), np.ones(1, np.float32), activation="dynamic", **attributes)
    with pytest.raises(FormatError, match="static"):
        reference(x, *constants.values(), activation="static", **attributes)


def test_a_process_that_registered_the_operators_ends_well():
    code = "import edgeq.export.ops.registry"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # onnx 1.20 crashed at the end
