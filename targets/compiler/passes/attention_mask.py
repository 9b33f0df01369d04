"""ONNX Runtime wants an attention mask with one row a query; the kernel wants the one row it was made from."""

from __future__ import annotations

from edgeq.targets.compiler.graph import GraphView


def drop_mask_expansion(view: GraphView) -> None:
    """Lets ``Attention`` read the input of the ``Expand`` that its mask comes from, and removes unused nodes."""
    for node in view.graph.node:
        if node.op_type != "Attention" or len(node.input) < 4 or not node.input[3]:
            continue
        expand = view.producer(node.input[3])
        if expand is not None and expand.op_type == "Expand":
            node.input[3] = expand.input[0]
    view.remove_unused()
