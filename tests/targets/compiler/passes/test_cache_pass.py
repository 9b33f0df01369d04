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
    for part, name in (("k", "key"), ("v", "value")) if cache != TensorProto.INT8 else ():
        entering, read = f"{part}_heads", f"present.0.{name}"
        if cache != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [entering], [f"{part}_rounded"], to=cache))
            entering, read = f"{part}_rounded", f"{part}_read"
        present = f"present.0.{name}"
        nodes.append(helper.make_node("Concat", [f"past_key_values.0.{name}", entering], [present], axis=2))
        if cache != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [present], [read], to=TensorProto.FLOAT))
    if cache == TensorProto.INT8:
        nodes += [node for part, name in (("k", "key"), ("v", "value")) for node in stored_as_int8(part, name)]
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
    if cache == TensorProto.INT8:
        scale = (TensorProto.FLOAT, ["batch", HEADS, "past", 1])
        inputs += [(f"past_key_values.0.{name}_scale", *scale) for name in ("key", "value")]
        outputs += [(f"present.0.{name}_scale", *scale) for name in ("key", "value")]
    shapes = {"table": (11, WIDTH), "places": (16, WIDTH), "w_qkv": (WIDTH, 3 * WIDTH), "head": (WIDTH, 11)}
    stored = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
    stored.append(numpy_helper.from_array(np.array([0, 0, HEADS, WIDTH // HEADS]), "split_shape"))
    stored.append(numpy_helper.from_array(np.array([0, 0, WIDTH]), "join_shape"))
    stored.append(numpy_helper.from_array(np.array([-1]), "last_axis"))
    numbers = {"levels": 127, "lowest": -127, "floor": 1e-30}
    stored += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        stored,
    )


def stored_as_int8(part: str, name: str) -> list[onnx.NodeProto]:
    """Keys or values to codes and scales, behind those of the past, and back to floats."""
    heads, past, present = f"{part}_heads", f"past_key_values.0.{name}", f"present.0.{name}"

    def node(kind: str, inputs: list[str], output: str, **options: int) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"{part}/{output}", **options)

    return [
        node("Abs", [heads], f"{part}_abs"),
        node("ReduceMax", [f"{part}_abs", "last_axis"], f"{part}_peak", keepdims=1),
        node("Clip", [f"{part}_peak", "floor"], f"{part}_largest"),
        node("Shape", [f"{part}_largest"], f"{part}_shape"),
        node("Expand", ["levels", f"{part}_shape"], f"{part}_levels"),
        node("Div", [f"{part}_levels", f"{part}_largest"], f"{part}_inverse"),
        node("Mul", [heads, f"{part}_inverse"], f"{part}_steps"),
        node("Round", [f"{part}_steps"], f"{part}_whole"),
        node("Clip", [f"{part}_whole", "lowest", "levels"], f"{part}_clipped"),
        node("Cast", [f"{part}_clipped"], f"{part}_codes", to=TensorProto.INT8),
        node("Div", [f"{part}_largest", f"{part}_levels"], f"{part}_scale"),
        node("Concat", [past, f"{part}_codes"], present, axis=2),
        node("Concat", [f"{past}_scale", f"{part}_scale"], f"{present}_scale", axis=2),
        node("Cast", [present], f"{part}_wide", to=TensorProto.FLOAT),
        node("Mul", [f"{part}_wide", f"{present}_scale"], f"{part}_read"),
    ]


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("cache", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.INT8])
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


def test_an_int8_cache_is_blocks_of_codes_with_their_scales():
    graph = decoder(cache=TensorProto.INT8)
    run_passes(graph)
    caches = {value.name: shape_of(value) for value in graph.input if "_cache." in value.name}
    block = 16 * (4 + 4)  # four columns, and a float32
    assert caches == {name: ["batch", 2, "context_blocks", block] for name in ("key_cache.0", "value_cache.0")}
    assert graph.input[3].type.tensor_type.elem_type == TensorProto.INT8


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("k/k_clipped", 1, "floor"),
        ("k/k_scale", 1, "k_largest"),
        ("k/k_inverse", 0, "floor"),
        ("v/v_abs", 0, "k_heads"),
        ("v/v_largest", 1, "levels"),
        ("v/v_peak", 1, "join_shape"),
        ("v/v_read", 1, "present.0.key_scale"),
        ("v/present.0.value_scale", 0, "past_key_values.0.key_scale"),
    ],
)
def test_keys_and_values_that_are_rounded_in_another_way_are_refused(name, at, value):
    graph = decoder(cache=TensorProto.INT8)
    next(node for node in graph.node if node.name == name).input[at] = value
    with pytest.raises(UnsupportedError, match=r"attention 'attn' cannot use a cache in place"):
        run_passes(graph)
