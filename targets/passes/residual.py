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
        added = view.producer(node.input[0])
        if added is None or added.op_type != "Add" or view.only_consumer(added.output[0]) is not node:
            continue
        if not all(_is_layer_output(view, name) for name in added.input):
            continue
        fused = onnx.helper.make_node(
            RESIDUAL_LAYER_NORM, [*added.input, *node.input[1:]], list(node.output), name=node.name
        )
        fused.attribute.extend(node.attribute)
        view.replace([added, node], fused)


def _is_layer_output(view: GraphView, name: str) -> bool:
    producer = view.producer(name)
    return producer is not None and producer.op_type in (
        "LowBitLinear",
        "FloatLinear",
        "LayerNormalization",
        RESIDUAL_LAYER_NORM,
    )
