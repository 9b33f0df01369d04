"""Reshapes that split or join the last axes say so without asking for the size of the others.

torch spells the target as ``Concat(Shape(x)[0], Shape(x)[1], 384, 2)``, and after its own optimisation the batch may
come from the shape of another input altogether, such as a cache, which a device does not have in that form. ``Reshape``
itself can keep an axis: the same target is the constant ``[0, 0, 384, 2]``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def keep_leading_axes(model: ir.Model) -> int:
    """Gives every ``Reshape`` that keeps its leading axes a constant target.

    Args:
        model: Changed in place; what computed the target is left for the removal of dead code.

    Returns:
        The number of nodes changed.
    """
    return sum(_rewrite(model.graph, node) for node in list(model.graph) if node.op_type == "Reshape")


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    data, target = node.inputs[:2]
    if data is None or target is None or target.is_initializer() or node.domain != "":
        return False
    before, after = data.shape, node.outputs[0].shape
    if before is None or after is None:
        return False
    unknown = ir.SymbolicDim(None)
    kept = 0
    while kept < min(len(before), len(after) - 1) and before[kept] == after[kept] != unknown:
        kept += 1
    rest = list(after)[kept:]
    if any(not isinstance(size, int) for size in rest) or 0 in rest:
        return False
    shape = np.array([0] * kept + rest, np.int64)
    constant = ir.Value(name=f"{node.outputs[0].name}_target", const_value=ir.tensor(shape))
    constant.shape, constant.dtype = ir.Shape(shape.shape), ir.DataType.INT64
    graph.register_initializer(constant)
    node.replace_input_with(1, constant)
    node.attributes.pop("allowzero", None)
    return True
