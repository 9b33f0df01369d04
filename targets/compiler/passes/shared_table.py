"""A float table that is also the matrix of an output head: one tensor, in the order that the matmul reads."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes
from edgeq.targets.compiler.passes.float_linear import FLOAT_LINEAR

PANEL_GATHER = "PanelGather"


def share_tables(view: GraphView) -> int:
    """Replaces ``Gather`` on a table that is otherwise read by transposed matmuls only, by ``PanelGather``.

    The attribute ``rows`` is the number of the table's rows.
    """
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in view.graph.node:
        for position, name in enumerate(node.input):
            if name in view.initializers:
                readers.setdefault(name, []).append((node, position))
    count = 0
    for name, uses in readers.items():
        look_ups = [node for node, position in uses if _is_look_up(node, position)]
        products = [node for node, position in uses if _is_product(node, position)]
        if look_ups and products and len(look_ups) + len(products) == len(uses):
            for node in look_ups:
                del node.attribute[:]
                node.attribute.append(onnx.helper.make_attribute("rows", view.initializers[name].dims[0]))
                node.op_type = PANEL_GATHER
                count += 1
    return count


def _is_look_up(node: onnx.NodeProto, position: int) -> bool:
    return node.op_type == "Gather" and position == 0 and attributes(node).get("axis", 0) == 0


def _is_product(node: onnx.NodeProto, position: int) -> bool:
    return node.op_type == FLOAT_LINEAR and position == 1 and attributes(node)["transposed"] == 1
