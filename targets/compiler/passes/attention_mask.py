"""What attention adds to its scores: read from where it is smallest.

ONNX Runtime wants a mask with one row a query; the kernel wants the one row it was made from. A bias that depends on
positions is the same for every text and a mask the same for every head: the standard takes their sum, which is as large
as all scores, the kernel takes both.
"""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView

BIASED_ATTENTION = "BiasedAttention"


def drop_mask_expansion(view: GraphView) -> int:
    """Lets ``Attention`` read the input of the ``Expand`` that its mask comes from, and removes unused nodes."""
    count = 0
    for node in view.graph.node:
        if node.op_type != "Attention" or len(node.input) < 4 or not node.input[3]:
            continue
        expand = view.producer(node.input[3])
        if expand is not None and expand.op_type == "Expand":
            node.input[3] = expand.input[0]
            count += 1
    view.remove_unused()
    return count


def add_masks_in_attention(view: GraphView) -> int:
    """Replaces ``Attention(q, k, v, Add(a, b))`` by one node with inputs ``q, k, v, a, b``."""
    count = 0
    for node in [n for n in view.graph.node if n.op_type == "Attention" and len(n.input) == 4 and n.input[3]]:
        addition = view.producer(node.input[3])
        if addition is not None and addition.op_type == "Add":
            fused = onnx.NodeProto()
            fused.CopyFrom(node)
            fused.op_type = BIASED_ATTENTION
            fused.input[:] = [*node.input[:3], *addition.input]
            view.replace([node], fused)
            count += 1
    view.remove_unused()
    return count
