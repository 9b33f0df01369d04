"""Decoders as they are exported, and what the compiler makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.passes import run_passes

WIDTH, HEADS = 8, 2


def decoder(*, cache: int = TensorProto.FLOAT16, parts: tuple[str, ...] = ("q", "k", "v")) -> onnx.GraphProto:
    """One attention layer and a head, with the nodes that the exporter leaves around attention."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["word"]),
        helper.make_node("Gather", ["places", "position_ids"], ["place"]),
        helper.make_node("Add", ["word", "place"], ["x"]),
        helper.make_node("MatMul", ["x", "w_qkv"], ["qkv"]),
        helper.make_node("Split", ["qkv"], list(parts), axis=2, num_outputs=3),
    ]
    for part in ("q", "k", "v"):
        nodes.append(helper.make_node("Reshape", [part, "split_shape"], [f"{part}_split"]))
        nodes.append(helper.make_node("Transpose", [f"{part}_split"], [f"{part}_heads"], perm=[0, 2, 1, 3]))
    for part, name in (("k", "key"), ("v", "value")):
        entering, read = f"{part}_heads", f"present.0.{name}"
        if cache != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [entering], [f"{part}_rounded"], to=cache))
            entering, read = f"{part}_rounded", f"{part}_read"
        present = f"present.0.{name}"
        nodes.append(helper.make_node("Concat", [f"past_key_values.0.{name}", entering], [present], axis=2))
        if cache != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [present], [read], to=TensorProto.FLOAT))
    keys, values = ("k_read", "v_read") if cache != TensorProto.FLOAT else ("present.0.key", "present.0.value")
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Attention", ["q_heads", keys, values, "mask"], ["attended"], name="attn"),
        helper.make_node("Transpose", ["attended"], ["rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["rows", "join_shape"], ["joined"]),
        helper.make_node("MatMul", ["joined", "head"], ["logits"]),
    ]
    past = ["batch", HEADS, "past", WIDTH // HEADS]
    inputs = [("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    inputs += [("attention_mask", TensorProto.INT64, ["batch", "total"])]
    inputs += [("position_ids", TensorProto.INT64, ["batch", "sequence"])]
    inputs += [(f"past_key_values.0.{name}", cache, past) for name in ("key", "value")]
    outputs = [("logits", TensorProto.FLOAT, ["batch", "sequence", 11])]
    outputs += [(f"present.0.{name}", cache, past) for name in ("key", "value")]
    shapes = {"table": (11, WIDTH), "places": (16, WIDTH), "w_qkv": (WIDTH, 3 * WIDTH), "head": (WIDTH, 11)}
    stored = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
    stored.append(numpy_helper.from_array(np.array([0, 0, HEADS, WIDTH // HEADS]), "split_shape"))
    stored.append(numpy_helper.from_array(np.array([0, 0, WIDTH]), "join_shape"))
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        stored,
    )


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("cache", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_attention_over_past_and_present_becomes_one_node(cache):
    graph = decoder(cache=cache)
    run_passes(graph)
    kinds = [node.op_type for node in graph.node]
    assert sorted(kinds) == sorted(
        ["TokenPositions", "Gather", "Gather", "Add", "FloatLinear", "CachedAttention", "LastToken", "FloatLinear"]
    )
    fused = graph.node[kinds.index("CachedAttention")]
    assert list(fused.input) == ["qkv"] * 3 + ["past_lengths", "new_lengths", "key_cache.0", "value_cache.0"]
    assert {a.name: onnx.helper.get_attribute_value(a) for a in fused.attribute} == {
        "scale": 0.5, "group": 1, "q_first": 0, "k_first": 8, "v_first": 16
    }  # fmt: skip


def test_the_interface_of_a_decoder_is_lengths_and_a_cache():
    graph = decoder()
    run_passes(graph)
    assert {value.name: shape_of(value) for value in graph.input} == {
        "input_ids": ["batch", "sequence"],
        "past_lengths": ["batch"],
        "new_lengths": ["batch"],
        "key_cache.0": ["batch", 2, "context_blocks", 4, 16],
        "value_cache.0": ["batch", 2, "context", 4],
    }
    assert {value.name: shape_of(value) for value in graph.output} == {"logits": ["batch", 11]}
    assert graph.input[3].type.tensor_type.elem_type == TensorProto.FLOAT16


def test_parts_of_a_product_are_found_in_any_order():
    graph = decoder(parts=("k", "q", "v"))
    run_passes(graph)
    fused = next(node for node in graph.node if node.op_type == "CachedAttention")
    found = {a.name: a.i for a in fused.attribute if a.name.endswith("_first")}
    assert found == {"q_first": 8, "k_first": 0, "v_first": 16}


def test_attention_that_does_not_read_the_past_is_refused():
    graph = decoder(cache=TensorProto.FLOAT)
    attention = next(node for node in graph.node if node.op_type == "Attention")
    attention.input[1] = "k_heads"
    with pytest.raises(UnsupportedError, match=r"attention 'attn' cannot use a cache.*its keys .k_heads. are no"):
        run_passes(graph)


def test_keys_and_values_of_different_layers_are_refused():
    graph = decoder(cache=TensorProto.FLOAT)
    attention = next(node for node in graph.node if node.op_type == "Attention")
    attention.input[2] = "present.0.key"
    with pytest.raises(UnsupportedError, match=r"its keys are 'past_key_values.0.key' and its values 'past_key_val"):
        run_passes(graph)
