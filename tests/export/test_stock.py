"""The stock flavour: the same weights in ONNX Runtime's own operators."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import UnsupportedError, UsageError
from edgeq.export.exporter import export_onnx
from edgeq.export.external_data import DATA_FILE, ModelWriter
from edgeq.export.ops import OPERATORS
from edgeq.export.stock import BLOCKS, block_codes, to_stock_operators
from edgeq.formats.low_bit import OP_DOMAIN, ZERO_POINTS, PackedMatrix, levels
from edgeq.formats.packing import pack
from edgeq.ledger import ledger
from edgeq.targets.builtin.target import load_target
from edgeq.targets.compiler.compile import compile_onnx

GRIDS = [(bits, zero_point) for bits, zero_points in ZERO_POINTS.items() for zero_point in zero_points]


def random_matrix(bits, zero_point, rows, columns, *, row_scales=True, seed=0):
    random = np.random.default_rng(seed)
    low, high = levels(bits, zero_point)
    codes = random.integers(low, high + 1, (rows, columns))
    scale = (random.random(rows if row_scales else 1) + 0.1).astype(np.float32)
    return PackedMatrix(rows, columns, bits, zero_point, len(scale)), codes, scale


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*GRIDS, (2, 0.0), (2, 3.0), (4, 3.0), (8, 200.0)]),
    st.integers(1, 40),
    st.integers(1, 300),
    st.booleans(),
    st.integers(0, 99),
)
def test_weights_stay_the_same_numbers(grid, rows, columns, row_scales, seed):
    bits, zero_point = grid
    matrix, codes, scale = random_matrix(bits, zero_point, rows, columns, row_scales=row_scales, seed=seed)
    stored = block_codes(matrix, pack(codes, bits), scale)
    assert stored.bits in (2, 4, 8)
    assert stored.block in BLOCKS
    assert (stored.blocks - 1) * stored.block < columns <= stored.blocks * stored.block
    point = 2 ** (stored.bits - 1) if stored.zero_point is None else stored.zero_point
    got = stored.scale.reshape(-1, 1) * (stored.codes.astype(np.float32) - np.float32(point))
    want = scale.reshape(-1, 1) * (codes.astype(np.float32) - np.float32(zero_point))
    np.testing.assert_array_equal(got, want)


def make_model(bits, zero_point, *, activation="dynamic", rows=48, columns=53, has_bias=True):
    """A product and a gathering of the same matrix; the table of a model and its head."""
    _, codes, scale = random_matrix(bits, zero_point, rows, columns)
    bias = np.random.default_rng(3).standard_normal(rows).astype(np.float32) if has_bias else np.zeros(1, np.float32)
    constants = {"W": pack(codes, bits), "s": scale, "b": bias}
    attributes = {"N": rows, "K": columns, "bits": bits, "zero_point": zero_point}
    linear = helper.make_node(
        "LowBitLinear", ["x", *constants], ["y"], name="a/LowBitLinear", domain=OP_DOMAIN, activation=activation,
        **attributes,
    )  # fmt: skip
    table = helper.make_node(
        "LowBitEmbedding", ["ids", "W", "s"], ["z"], name="LowBitEmbedding", domain=OP_DOMAIN, **attributes
    )
    graph = helper.make_graph(
        [table, linear],
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
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(OP_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), constants, attributes


@pytest.mark.parametrize("activation", ["dynamic", "none"])
@pytest.mark.parametrize(("bits", "zero_point"), [*GRIDS, (4, 3.0)])
@pytest.mark.parametrize("columns", [53, 128])
def test_onnx_runtime_computes_the_same_layer(bits, zero_point, columns, activation):
    if bits <= 2 and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24):
        pytest.skip("needs onnxruntime 1.24 or later, which `.venv/bin/pip install 'onnxruntime>=1.28'` installs")
    model, constants, attributes = make_model(
        bits, zero_point, activation=activation, columns=columns, has_bias=columns == 53
    )
    to_stock_operators(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    random = np.random.default_rng(1)
    x, ids = random.standard_normal((2, 5, columns)).astype(np.float32), random.integers(0, 48, (2, 5))
    y, z = session.run(None, {"x": x, "ids": ids})
    weight = {"W": constants["W"], "s": constants["s"]}
    np.testing.assert_array_equal(z, OPERATORS["LowBitEmbedding"].reference(ids, *weight.values(), **attributes))
    want = OPERATORS["LowBitLinear"].reference(x, *constants.values(), activation="none", **attributes)
    in_floats = activation == "none" and (bits == 4 or zero_point == 1.5)
    tolerance = 1e-5 if in_floats else 0.02  # int8 activations: 1/254 of the largest each, some of one sign
    assert np.abs(y - want).max() <= tolerance * np.abs(want).max()


def test_codes_of_a_table_that_is_the_head_as_well_are_stored_once(tmp_path):
    model, _, _ = make_model(4, 8.0, rows=300, columns=256)
    assert to_stock_operators(model) == []
    with ModelWriter(tmp_path) as writer:
        path = writer.write("model", model)
    codes, scales, bias = 300 * 256 // 2, 300 * 2 * 4, 300 * 4
    assert (tmp_path / DATA_FILE).stat().st_size <= codes + scales + bias + 3 * 64
    session = onnxruntime.InferenceSession(str(path))
    ids = np.arange(6).reshape(1, 6)
    y, z = session.run(None, {"x": np.zeros((1, 6, 256), np.float32), "ids": ids})
    assert y.shape == (1, 6, 300)
    assert z.shape == (1, 6, 256)


def test_what_cannot_read_the_stock_flavour_says_so(tmp_path):
    model, _, _ = make_model(4, 8.0)
    to_stock_operators(model)
    with ModelWriter(tmp_path) as writer:
        path = writer.write("model", model)
    with pytest.raises(UnsupportedError, match="stock flavour"):
        ledger(path)
    with pytest.raises(UnsupportedError, match=r"MatMulNBits .*default flavour"):
        compile_onnx(path, target=load_target("host"))


def test_nodes_keep_the_names_of_their_modules_and_nothing_of_ours_is_left():
    model, _, _ = make_model(2, 1.0)
    to_stock_operators(model)
    names = {node.name for node in model.graph.node}
    assert names == {"a/MatMulNBits", "a/Add", "GatherBlockQuantized", "Slice"}
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    levels_ = {a.i for n in model.graph.node for a in n.attribute if a.name == "accuracy_level"}
    assert levels_ == {4}


def test_what_is_stored_otherwise_is_said():
    assert "in 4 bits" in "".join(to_stock_operators(make_model(2, 1.5)[0]))
    assert "rounded to int8" in "".join(to_stock_operators(make_model(8, 128.0, activation="none")[0]))
    assert to_stock_operators(make_model(1, 0.5)[0]) == []


def test_unknown_operators_and_flavours_are_refused(tmp_path):
    model, _, _ = make_model(2, 1.0)
    model.graph.node[0].op_type = "LowBitConvolution"
    with pytest.raises(UnsupportedError, match="LowBitConvolution"):
        to_stock_operators(model)
    with pytest.raises(UsageError, match="edgeq or stock, found 'plain'"):
        export_onnx(tmp_path, tmp_path / "out", flavour="plain")
