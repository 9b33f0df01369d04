"""Scores picked by distance: the same columns in every batch and head, so that one table of them is enough."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes

GATHER_COLUMNS = "GatherColumns"


def pick_columns_once(view: GraphView) -> int:
    """Replaces ``GatherElements(x, Expand(columns))`` over the last axis of four by one node with ``x, columns``."""
    count = 0
    for node in [n for n in view.graph.node if n.op_type == "GatherElements"]:
        expand = view.producer(node.input[1])
        if expand is None or expand.op_type != "Expand" or attributes(node).get("axis", 0) not in (-1, 3):
            continue
        inputs = [node.input[0], expand.input[0]]
        view.replace([node], onnx.helper.make_node(GATHER_COLUMNS, inputs, list(node.output), name=node.name))
        count += 1
    view.remove_unused()
    return count
