"""Graph passes: what they fuse, and what they must leave alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.targets.compiler.passes import run_passes


def graph_of(nodes: list[onnx.NodeProto], outputs: list[str], **initializers: np.ndarray) -> onnx.GraphProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])

    stored = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    return helper.make_graph(nodes, "g", [value("x")], [value(o) for o in outputs], stored)


def kinds(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


SQUARE, ROW = np.eye(4, dtype=np.float32), np.ones(4, np.float32)


def test_a_product_and_its_bias_become_one_layer():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["b", "p"], ["y"])]
    graph = graph_of(nodes, ["y"], w=SQUARE, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["FloatLinear"]
    assert list(graph.node[0].input) == ["x", "w", "b"]
    assert list(graph.node[0].output) == ["y"]


def test_a_product_that_is_also_an_output_keeps_its_own_node():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    graph = graph_of(nodes, ["y", "p"], w=SQUARE, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["FloatLinear", "Add"]


def test_a_gemm_keeps_the_order_of_its_matrix():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    graph = graph_of(nodes, ["y"], w=SQUARE, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["FloatLinear"]
    assert graph.node[0].attribute[0].i == 1


def test_a_gemm_with_factors_is_left_alone():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5)]
    graph = graph_of(nodes, ["y"], w=SQUARE, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["Gemm"]


def low_bit_linear(source: str, target: str, activation: str = "none") -> onnx.NodeProto:
    return helper.make_node(
        "LowBitLinear", [source, "w", "s", "b"], [target], domain="ai.edgeq", N=4, K=4, activation=activation
    )


def test_gelu_moves_into_the_layer_before_it():
    nodes = [low_bit_linear("x", "h"), helper.make_node("Gelu", ["h"], ["y"], approximate="tanh")]
    graph = graph_of(nodes, ["y"], w=SQUARE, s=ROW, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["LowBitLinear"]
    assert {a.name: a.s for a in graph.node[0].attribute if a.name == "epilogue"} == {"epilogue": b"gelu_tanh"}
    assert list(graph.node[0].output) == ["y"]


def test_gelu_stays_where_its_input_has_another_reader():
    nodes = [
        low_bit_linear("x", "h"),
        helper.make_node("Gelu", ["h"], ["g"]),
        helper.make_node("Add", ["g", "h"], ["y"]),
    ]
    graph = graph_of(nodes, ["y"], w=SQUARE, s=ROW, b=ROW)
    run_passes(graph)
    assert kinds(graph) == ["LowBitLinear", "Gelu", "Add"]


def residual_graph(second_addend: str) -> onnx.GraphProto:
    nodes = [
        low_bit_linear("x", "h"),
        low_bit_linear("h", "o"),
        helper.make_node("Add", ["o", second_addend], ["r"]),
        helper.make_node("LayerNormalization", ["r", "g", "b"], ["y"], epsilon=1e-12),
    ]
    return graph_of(nodes, ["y"], w=SQUARE, s=ROW, b=ROW, g=ROW)


def test_a_residual_addition_moves_into_the_normalisation():
    graph = residual_graph("h")
    run_passes(graph)
    assert kinds(graph) == ["LowBitLinear", "LowBitLinear", "ResidualLayerNormalization"]
    assert list(graph.node[-1].input) == ["o", "h", "g", "b"]
    assert graph.node[-1].attribute[0].f == np.float32(1e-12)


def test_an_addend_that_may_be_broadcast_stays_outside():
    graph = residual_graph("s")
    run_passes(graph)
    assert kinds(graph)[-2:] == ["Add", "LayerNormalization"]


def addition_graph(second_addend: str, activation: str) -> onnx.GraphProto:
    nodes = [
        low_bit_linear("x", "h", activation),
        low_bit_linear("h", "o", activation),
        helper.make_node("Add", [second_addend, "o"], ["y"]),
    ]
    return graph_of(nodes, ["y", "h"], w=SQUARE, s=ROW, b=ROW)


def test_an_addition_without_a_normalisation_moves_into_the_product():
    graph = addition_graph("h", "dynamic")
    run_passes(graph)
    assert kinds(graph) == ["LowBitLinear", "LowBitLinear"]
    assert list(graph.node[1].input) == ["h", "w", "s", "b", "", "h"]
    assert list(graph.node[1].output) == ["y"]


def test_an_addition_stays_where_it_may_broadcast_or_the_product_is_of_floats():
    for addend, activation in (("s", "dynamic"), ("h", "none")):
        graph = addition_graph(addend, activation)
        run_passes(graph)
        assert kinds(graph) == ["LowBitLinear", "LowBitLinear", "Add"]


def test_only_a_normalisation_before_dynamic_activations_makes_codes():
    for activation, expected in (("dynamic", [1]), ("static", []), ("none", [])):
        nodes = [
            helper.make_node("LayerNormalization", ["x", "b", "b"], ["n"]),
            low_bit_linear("n", "y", activation),
        ]
        graph = graph_of(nodes, ["y"], w=SQUARE, s=ROW, b=ROW)
        run_passes(graph)
        assert [a.i for a in graph.node[0].attribute if a.name == "quantized"] == expected


def test_attention_reads_the_mask_before_its_expansion():
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["m"]),
        helper.make_node("Attention", ["x", "x", "x", "m"], ["y"]),
    ]
    graph = graph_of(nodes, ["y"], shape=np.array([1, 4]))
    run_passes(graph)
    assert kinds(graph) == ["Attention"]
    assert list(graph.node[0].input) == ["x", "x", "x", "x"]


def test_a_sigmoid_gates_its_own_input_only():
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "x"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["other"]),
        helper.make_node("Mul", ["x", "other"], ["y"]),
    ]
    graph = graph_of(nodes, ["y"])
    run_passes(graph)
    assert kinds(graph) == ["Silu", "Sigmoid", "Mul"]


def test_attention_takes_both_parts_of_a_sum_of_masks():
    nodes = [
        helper.make_node("Add", ["x", "x"], ["added"]),
        helper.make_node("Attention", ["x", "x", "x", "added"], ["y"], q_num_heads=2, kv_num_heads=2),
    ]
    graph = graph_of(nodes, ["y"])
    run_passes(graph)
    assert kinds(graph) == ["BiasedAttention"]
    assert list(graph.node[0].input) == ["x"] * 5


def test_columns_that_all_heads_share_are_picked_by_one_kernel():
    nodes = [
        helper.make_node("Expand", ["columns", "shape"], ["all"]),
        helper.make_node("GatherElements", ["x", "all"], ["y"], axis=-1),
    ]
    graph = graph_of(nodes, ["y"], columns=np.zeros((1, 1, 4, 4), np.int64), shape=np.array([2, 3, 4, 4]))
    run_passes(graph)
    assert kinds(graph) == ["GatherColumns"]
    assert list(graph.node[0].input) == ["x", "columns"]
