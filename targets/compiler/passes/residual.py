"""Residual additions: taken into the normalisation behind them, or else into the matmul before them."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes

RESIDUAL_LAYER_NORM = "ResidualLayerNormalization"


def fuse_residual_additions(view: GraphView) -> int:
    """Replaces ``LayerNormalization(Add(a, b))`` by one node with inputs ``a, b, gamma, beta``.

    Only where neither addend is broadcast in a way that the graph shows (a constant, or a row vector made from a
    table by positions): the kernel reads both with the same shape.
    """
    count = 0
    for node in [n for n in view.graph.node if n.op_type == "LayerNormalization"]:
        addition = view.producer(node.input[0])
        if addition is not None and _can_fuse(view, addition, node):
            inputs = [*addition.input, *node.input[1:]]
            fused = onnx.helper.make_node(RESIDUAL_LAYER_NORM, inputs, list(node.output), name=node.name)
            fused.attribute.extend(node.attribute)
            view.replace([addition, node], fused)
            count += 1
    return count


def add_in_products(view: GraphView) -> int:
    """Replaces ``Add(LowBitLinear(x), r)`` by one ``LowBitLinear`` that adds its sixth input at the end.

    Only where ``r`` has a row for every token: results of layers and of look-ups of tokens, and sums with them.
    """
    count = 0
    for node in [n for n in view.graph.node if n.op_type == "LowBitLinear"]:
        addition = view.only_consumer(node.output[0])
        if addition is None or addition.op_type != "Add" or attributes(node).get("activation", "none") == "none":
            continue
        others = [name for name in addition.input if name != node.output[0]]
        if len(others) == 1 and _has_all_rows(view, others[0]):
            inputs = [*node.input, ""][:5]
            fused = onnx.helper.make_node(node.op_type, [*inputs, *others], list(addition.output), name=node.name)
            fused.attribute.extend(node.attribute)
            view.replace([node, addition], fused)
            count += 1
    return count


def _has_all_rows(view: GraphView, name: str) -> bool:
    producer = view.producer(name)
    if producer is not None and producer.op_type == "Add":
        return any(_has_all_rows(view, addend) for addend in producer.input)
    if producer is not None and producer.op_type in ("LowBitEmbedding", "Gather"):
        return "input_ids" in producer.input
    return _is_layer_output(view, name)


def _can_fuse(view: GraphView, addition: onnx.NodeProto, norm: onnx.NodeProto) -> bool:
    return (
        addition.op_type == "Add"
        and view.only_consumer(addition.output[0]) is norm
        and all(_is_layer_output(view, name) for name in addition.input)
    )


def _is_layer_output(view: GraphView, name: str) -> bool:
    producer = view.producer(name)
    return producer is not None and producer.op_type in (
        "LowBitLinear",
        "FloatLinear",
        "LayerNormalization",
        RESIDUAL_LAYER_NORM,
    )
