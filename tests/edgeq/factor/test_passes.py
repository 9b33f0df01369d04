"""Passes that factorised graphs need, on graphs of a few nodes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.export.passes.clean import drop_dead_code
from edgeq.export.passes.joined import drop_joins
from edgeq.export.passes.reshapes import keep_leading_axes
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.packing import pack
from edgeq.targets.compiler.graph import GraphView
from edgeq.targets.compiler.passes.constants import fold_constants
from edgeq.targets.compiler.passes.float_linear import FLOAT_LINEAR, fuse_float_linear

RANDOM = np.random.default_rng(0)


def _model(nodes, inputs, outputs, constants=(), values=()):
    def info(pairs):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in pairs]

    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants]
    graph = helper.make_graph(nodes, "test", info(inputs), info(outputs), tensors, value_info=info(values))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _joined(*, axis=2, widths=(4, 4), split_axis=2, activation=None, reads_all=False):
    nodes = [
        helper.make_node("Neg", ["a"], ["na"]),
        helper.make_node("Concat", ["na", "b"], ["both"], axis=axis),
        helper.make_node("Split", ["both"], ["first", "second"], axis=split_axis, num_outputs=2),
        helper.make_node("Mul", ["first", "second"], ["y"]),
    ]
    if activation is not None:
        nodes[2].input[0] = "active"
        nodes.insert(2, helper.make_node(activation, ["both"], ["active"]))
    if reads_all:
        nodes[-1:] = [
            helper.make_node("Mul", ["first", "second"], ["part"]),
            helper.make_node("ReduceMean", ["active", "last"], ["mean"]),
            helper.make_node("Add", ["part", "mean"], ["y"]),
        ]
    shapes = [("a", ["n", "s", widths[0]]), ("b", ["n", "s", widths[1]])]
    half = sum(widths) // 2
    values = [("na", ["n", "s", widths[0]]), ("both", ["n", "s", sum(widths)])]
    values += [("first", ["n", "s", half]), ("second", ["n", "s", half])]
    values += [("active", ["n", "s", sum(widths)])] if activation else []
    constants = [("last", np.array([2]))] if reads_all else []
    return _model(nodes, shapes, [("y", ["n", "s", half])], constants, values=values)


def test_a_join_that_is_split_again_goes():
    before = _joined()
    model = ir.from_proto(before)
    assert drop_joins(model) == 1
    drop_dead_code(model)
    after = ir.to_proto(model)
    assert [node.op_type for node in after.graph.node] == ["Neg", "Mul"]
    feed = {name: RANDOM.standard_normal((2, 3, 4)).astype(np.float32) for name in "ab"}
    assert np.array_equal(ReferenceEvaluator(before).run(None, feed)[0], ReferenceEvaluator(after).run(None, feed)[0])


@pytest.mark.parametrize("activation", ["Gelu", "Relu", "Tanh"])
def test_an_activation_between_works_on_each_part(activation):
    before = _joined(activation=activation)
    model = ir.from_proto(before)
    assert drop_joins(model) == 1
    drop_dead_code(model)
    after = ir.to_proto(model)
    assert [node.op_type for node in after.graph.node] == ["Neg", activation, activation, "Mul"]
    feed = {name: RANDOM.standard_normal((2, 3, 4)).astype(np.float32) for name in "ab"}
    assert np.array_equal(ReferenceEvaluator(before).run(None, feed)[0], ReferenceEvaluator(after).run(None, feed)[0])


@pytest.mark.parametrize("other", [{"activation": "Softmax"}, {"activation": "Gelu", "reads_all": True}])
def test_what_works_across_parts_or_is_read_whole_stays(other):
    assert drop_joins(ir.from_proto(_joined(**other))) == 0


def test_parts_of_other_sizes_stay():
    assert drop_joins(ir.from_proto(_joined(widths=(3, 5)))) == 0


def test_reshapes_keep_their_leading_axes():
    nodes = [
        helper.make_node("Shape", ["x"], ["lead"], start=0, end=2),
        helper.make_node("Concat", ["lead", "tail"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["split"], allowzero=1),
        helper.make_node("Concat", ["lead", "width"], ["back"], axis=0),
        helper.make_node("Reshape", ["split", "back"], ["y"], allowzero=1),
    ]
    constants = [("tail", np.array([3, 2])), ("width", np.array([6]))]
    shapes = [("x", ["n", "s", 6])], [("y", ["n", "s", 6])]
    before = _model(nodes, *shapes, constants, values=[("split", ["n", "s", 3, 2])])
    model = ir.from_proto(before)
    assert keep_leading_axes(model) == 2
    drop_dead_code(model)
    after = ir.to_proto(model)
    assert [node.op_type for node in after.graph.node] == ["Reshape", "Reshape"]
    targets = sorted(numpy_helper.to_array(tensor).tolist() for tensor in after.graph.initializer)
    assert targets == [[0, 0, 3, 2], [0, 0, 6]]
    for shape in ((2, 5, 6), (1, 1, 6)):
        x = RANDOM.standard_normal(shape).astype(np.float32)
        assert np.array_equal(ReferenceEvaluator(after).run(None, {"x": x})[0], x)


def test_a_reshape_that_mixes_unknown_axes_stays():
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = _model(nodes, [("x", ["n", "s", 6]), ("other", ["m"])], [("y", ["n", "s", 6])], [("shape", [0, 0, 6])])
    assert keep_leading_axes(ir.from_proto(model)) == 0  # a constant already


def test_mixtures_of_packed_cores_become_weights():
    cores, rank, slices = 3, 8, 2
    codes = RANDOM.integers(0, 3, (cores * rank, rank)).astype(np.uint8)
    spec = PackedMatrix(cores * rank, rank, 2, 1.0, cores * rank)
    scale = RANDOM.random(cores * rank).astype(np.float32)
    mix = RANDOM.standard_normal((slices, cores)).astype(np.float32)
    nodes = [
        helper.make_node("LowBitEmbedding", ["ids", "packed", "scale"], ["decoded"], domain="ai.edgeq",
                         N=spec.rows, K=spec.columns, bits=2, zero_point=1.0),
        helper.make_node("Reshape", ["decoded", "flat"], ["cores"]),
        helper.make_node("MatMul", ["mix", "cores"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "square"], ["blocks"]),
        helper.make_node("Transpose", ["blocks"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]  # fmt: skip
    constants = {
        "ids": np.arange(spec.rows), "packed": pack(codes, 2), "scale": scale, "mix": mix,
        "flat": np.array([cores, rank * rank]), "square": np.array([slices * rank, rank]),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rank])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", slices * rank])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    view = GraphView(graph)
    fold_constants(view)
    # The last transposition only feeds a product, which reads either orientation.
    assert [node.op_type for node in graph.node] == ["Transpose", "MatMul"]
    fuse_float_linear(view)
    (product,) = graph.node
    assert product.op_type == FLOAT_LINEAR
    assert product.attribute[0].i == 1
    found = numpy_helper.to_array(view.initializers[product.input[1]])
    decoded = (scale[:, None] * (codes.astype(np.float32) - 1.0)).reshape(cores, -1)
    expected = (mix.astype(np.float64) @ decoded.astype(np.float64)).astype(np.float32)
    assert np.array_equal(found, expected.reshape(-1, rank))


@pytest.mark.parametrize("also_read", [True, False])
def test_a_table_that_is_also_a_head_is_stored_once(also_read):
    nodes = [
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    outputs = [("y", ["n", 5])]
    if also_read:
        nodes.append(helper.make_node("Neg", ["turned"], ["z"]))
        outputs.append(("z", [4, 5]))
    table = RANDOM.standard_normal((5, 4)).astype(np.float32)
    model = _model(nodes, [("x", ["n", 4])], outputs, [("table", table)])
    view = GraphView(model.graph)
    fold_constants(view)
    fuse_float_linear(view)
    product = next(node for node in view.graph.node if node.op_type == FLOAT_LINEAR)
    turned = product.attribute[0].i
    assert turned == (0 if also_read else 1)
    found = numpy_helper.to_array(view.initializers[product.input[1]])
    assert np.array_equal(found, table.T if also_read else table)
