"""Attention masks, made to give on ONNX Runtime what they give elsewhere.

A padding mask is the same for every query, so the graph holds it as ``[B, 1, 1, S]``; the standard lets
``Attention`` broadcast it. ONNX Runtime's kernel (1.31) does not: it demands as many rows as there are
queries. One ``Expand`` to ``[B, 1, S, S]``, shared by all layers, satisfies it; a compiler that broadcasts
by itself reads through that node.

transformers hides a token by adding the least float32 to its scores, and so gives all tokens of a row without any the
same weight. ONNX Runtime takes a row whose largest score is that number for one that sees nothing, and returns zeros.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HIDDEN = np.float32(-1e38)
"""Added to the scores of what is hidden: any score that occurs is lost in its rounding, and it is not the least."""


def hide_by_a_lesser_number(model: ir.Model) -> int:
    """Replaces the constant that is the least float32 by :data:`HIDDEN`.

    Args:
        model: Changed in place.

    Returns:
        The number of constants changed.
    """
    changed = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size != 1:
            continue
        if tensor.numpy().reshape(()) == np.finfo(np.float32).min:
            value.const_value = ir.tensor(np.full(tensor.shape.numpy(), HIDDEN), name=value.name)
            changed += 1
    return changed


def repeat_mask_rows(model: ir.Model) -> int:
    """Inserts an ``Expand`` behind every mask ``[B, 1, 1, S]`` that an ``Attention`` node reads.

    Args:
        model: Changed in place.

    Returns:
        The number of masks expanded (one for all layers of an encoder).
    """
    expanded: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        if node.op_type != "Attention" or node.domain != "" or len(node.inputs) < 4:
            continue
        mask, query = node.inputs[3], node.inputs[0]
        if mask is None or query is None or mask.shape is None or len(mask.shape) != 4 or mask.shape[2] != 1:
            continue
        if mask not in expanded:
            expanded[mask] = _expand(model.graph, mask, query, before=node)
        node.replace_input_with(3, expanded[mask])
    return len(expanded)


def _expand(graph: ir.Graph, mask: ir.Value, query: ir.Value, *, before: ir.Node) -> ir.Value:
    """Adds ``Expand(mask, [1, 1, queries, 1])``, with the number of queries read from ``query``."""
    if query.shape is None:
        raise ValueError(f"attention input {query.name} has no shape")
    axis = len(query.shape) - 2  # [B, S, H*D] or [B, H, S, D]
    rows = ir.Node("", "Shape", [query], [ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)])
    ones = ir.Value(name=f"{mask.name}_ones", const_value=ir.tensor(np.ones(1, np.int64)))
    ones.shape, ones.dtype = ir.Shape([1]), ir.DataType.INT64
    graph.register_initializer(ones)
    shape = ir.Node("", "Concat", [ones, ones, rows.outputs[0], ones], [ir.AttrInt64("axis", 0)])
    expand = ir.Node("", "Expand", [mask, shape.outputs[0]])
    for node, name in ((rows, "queries"), (shape, "rows_shape"), (expand, "rows")):
        node.outputs[0].name = f"{mask.name}_{name}"
        node.name = f"{mask.name}_{name}"
        graph.insert_before(before, node)
    output = expand.outputs[0]
    output.type = mask.type
    if mask.shape is not None:
        output.shape = ir.Shape([mask.shape[0], mask.shape[1], query.shape[axis], mask.shape[3]])
    return output
