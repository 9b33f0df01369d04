"""Graph passes change what they understand and leave the rest alone."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeq.export.passes.attention import merge_heads
from edgeq.export.passes.attention_mask import repeat_mask_rows
from edgeq.export.passes.clean import drop_dead_code, plain_dimensions

HEADS, SIZE = 3, 4


def split_attention(*, permutation=(0, 2, 1, 3), also_output=False):
    """Attention on heads split by Reshape and Transpose, as torch exports it."""
    width = HEADS * SIZE
    nodes, values = [], []

    def declare(name, shape):
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    for name in "qkv":
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}_split"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_split"], [f"{name}_heads"], perm=[0, 2, 1, 3]))
        declare(f"{name}_split", ["b", "s", HEADS, SIZE])
        declare(f"{name}_heads", ["b", HEADS, "s", SIZE])
    nodes.append(helper.make_node("Attention", ["q_heads", "k_heads", "v_heads", "mask"], ["out"], name="attention"))
    nodes.append(helper.make_node("Transpose", ["out"], ["rows"], perm=permutation))
    nodes.append(helper.make_node("Reshape", ["rows", "join"], ["y"]))
    declare("out", ["b", HEADS, "s", SIZE])
    declare("rows", ["b", "s", HEADS, SIZE])
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s", width]) for name in "qkv"]
    inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", 1, 1, "s"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s", width])]
    if also_output:
        outputs.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", HEADS, "s", SIZE]))
    constants = [
        numpy_helper.from_array(np.array([0, 0, HEADS, SIZE]), "split"),
        numpy_helper.from_array(np.array([0, 0, width]), "join"),
    ]
    graph = helper.make_graph(nodes, "test", inputs, outputs, constants, value_info=values)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def inputs(batch=2, length=5):
    random = np.random.default_rng(0)
    values = {name: random.standard_normal((batch, length, HEADS * SIZE)).astype(np.float32) for name in "qkv"}
    mask = np.zeros((batch, 1, 1, length), np.float32)
    mask[-1, ..., 3:] = np.finfo(np.float32).min
    return {**values, "mask": mask}


def test_merged_attention_computes_the_same():
    before = split_attention()
    model = ir.from_proto(before)
    assert merge_heads(model) == 1
    assert repeat_mask_rows(model) == 1
    drop_dead_code(model)
    assert [node.op_type for node in model.graph] == ["Shape", "Concat", "Expand", "Attention"]
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    [want] = ReferenceEvaluator(before).run(None, inputs())
    [got] = ReferenceEvaluator(after).run(None, inputs())
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("surroundings", [{"permutation": (0, 1, 2, 3)}, {"also_output": True}])
def test_other_surroundings_are_left_alone(surroundings):
    if "permutation" in surroundings:
        proto = split_attention()
        next(n for n in proto.graph.node if n.output[0] == "rows").attribute[0].ints[:] = surroundings["permutation"]
    else:
        proto = split_attention(**surroundings)
    model = ir.from_proto(proto)
    assert merge_heads(model) == 0
    assert [node.op_type for node in model.graph] == [node.op_type for node in proto.graph.node]


def test_merging_twice_changes_nothing_more():
    model = ir.from_proto(split_attention())
    assert (merge_heads(model), merge_heads(model)) == (1, 0)


def test_masks_with_a_row_for_every_query_are_left_alone():
    proto = split_attention()
    proto.graph.input[3].type.tensor_type.shape.dim[2].dim_param = "s"
    assert repeat_mask_rows(ir.from_proto(proto)) == 0


def test_only_dimensions_of_the_interface_keep_a_name():
    model = ir.from_proto(split_attention())
    value = next(iter(model.graph)).outputs[0]
    value.shape = ir.Shape(["b", "Min(512, s)", HEADS, SIZE])
    interface = {value.name: ("b",) for value in (*model.graph.inputs, *model.graph.outputs)}
    interface[model.graph.inputs[0].name] = ("b", "past + present")
    plain_dimensions(model, interface)
    assert [getattr(size, "value", size) for size in value.shape] == ["b", None, HEADS, SIZE]
    assert [getattr(size, "value", size) for size in model.graph.inputs[0].shape][:2] == ["b", "past + present"]
