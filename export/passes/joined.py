"""Parts that are joined only to be split again: each reader gets its part.

GPT-2 makes queries, keys and values with one layer. Where that layer is factorised into three, the graph would join
their outputs and split them in the next node.
"""

from __future__ import annotations

import onnx_ir as ir


def drop_joins(model: ir.Model) -> int:
    """Rewires every ``Split`` of a ``Concat`` of as many parts of the same sizes.

    Args:
        model: Changed in place; nodes that nothing reads any more are left for the removal of dead code.

    Returns:
        The number of splits that are read no longer.
    """
    return sum(_rewire(node) for node in list(model.graph) if node.op_type == "Split" and node.domain == "")


def _rewire(split: ir.Node) -> bool:
    source = split.inputs[0]
    join = source.producer() if source is not None else None
    if join is None or join.op_type != "Concat" or len(join.inputs) != len(split.outputs):
        return False
    parts = [(part, value) for part, value in zip(join.inputs, split.outputs, strict=True) if part is not None]
    kept = (value.is_graph_output() or not _same_width(part, value) for part, value in parts)
    if len(parts) < len(split.outputs) or any(kept):
        return False
    axis, rank = join.attributes["axis"].as_int(), len(source.shape or ()) if source is not None else 0
    if rank == 0 or axis % rank != _axis(split) % rank:
        return False
    for part, value in parts:
        value.replace_all_uses_with(part)
    return True


def _axis(split: ir.Node) -> int:
    axis = split.attributes.get("axis")
    return axis.as_int() if axis is not None else 0


def _same_width(part: ir.Value, value: ir.Value) -> bool:
    if part.shape is None or value.shape is None or len(part.shape) != len(value.shape):
        return False
    return all(a == b for a, b in zip(part.shape, value.shape, strict=True))
