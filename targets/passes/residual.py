"""Residual addition followed by layer normalisation: one pass over memory instead of two."""

from __future__ import annotations

import onnx

from edgeq.targets.graph import GraphView

RESIDUAL_LAYER_NORM = "ResidualLayerNormalization"


def fuse_residual_additions(view: GraphView) -> None:
    """Replaces ``LayerNormalization(Add(a, b))`` by one node with inputs ``a, b, gamma, beta``.

    Only where neither addend is broadcast in a way that the graph shows (a constant, or a row vector made from a
    table by positions): the kernel reads both with the same shape.
    """
    for node in [n for n in view.graph.node if n.op_type == "LayerNormalization"]:
        addition = view.producer(node.input[0])
        if addition is not None and _can_fuse(view, addition, node):
            inputs = [*addition.input, *node.input[1:]]
            fused = onnx.helper.make_node(RESIDUAL_LAYER_NORM, inputs, list(node.output), name=node.name)
            fused.attribute.extend(node.attribute)
            view.replace([addition, node], fused)


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
