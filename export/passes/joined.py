"""Parts that are joined only to be split again: each reader gets its part.

GPT-2 makes queries, keys and values with one layer. Where that layer is factorised into three, the graph would join
their outputs and split them in the next node. A feed-forward layer that is factorised in slices does so around its
activation, which works on each number alone and so on each part as well.
"""

from __future__ import annotations

import onnx_ir as ir

_ACTIVATIONS = ("Gelu", "Relu", "Tanh")


def drop_joins(model: ir.Model) -> int:
    """Rewires every ``Split`` of a ``Concat`` of as many parts of the same sizes, or of an activation of one.

    Args:
        model: Changed in place; nodes that nothing reads any more are left for the removal of dead code.

    Returns:
        The number of splits that are read no longer.
    """
    splits = [node for node in model.graph if node.op_type == "Split" and node.domain == ""]
    return sum(_rewire(model.graph, node) for node in splits)


def _rewire(graph: ir.Graph, split: ir.Node) -> bool:
    source = split.inputs[0]
    activation = _activation(source)
    joined = source if activation is None else activation.inputs[0]
    join = joined.producer() if joined is not None else None
    if join is None or join.op_type != "Concat" or len(join.inputs) != len(split.outputs):
        return False
    parts = [(part, value) for part, value in zip(join.inputs, split.outputs, strict=True) if part is not None]
    kept = (value.is_graph_output() or not _same_width(part, value) for part, value in parts)
    if len(parts) < len(split.outputs) or any(kept):
        return False
    axis, rank = join.attributes["axis"].as_int(), len(joined.shape or ()) if joined is not None else 0
    if rank == 0 or axis % rank != _axis(split) % rank:
        return False
    for part, value in parts:
        value.replace_all_uses_with(part if activation is None else _activated(graph, activation, part, value))
    return True


def _activation(value: ir.Value | None) -> ir.Node | None:
    """Returns the activation that makes ``value``, if one does and nobody else reads what it makes."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type not in _ACTIVATIONS or node.domain != "":
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


def _activated(graph: ir.Graph, activation: ir.Node, part: ir.Value, value: ir.Value) -> ir.Value:
    """Puts the activation of one part in front of that of all; ``value`` is the part of its result."""
    node = ir.Node(
        "",
        activation.op_type,
        [part],
        list(activation.attributes.values()),
        outputs=[ir.Value(name=f"{value.name}_activated", type=value.type, shape=value.shape)],
        metadata_props=dict(activation.metadata_props),
    )
    graph.insert_before(activation, node)
    return node.outputs[0]


def _axis(split: ir.Node) -> int:
    axis = split.attributes.get("axis")
    return axis.as_int() if axis is not None else 0


def _same_width(part: ir.Value, value: ir.Value) -> bool:
    if part.shape is None or value.shape is None or len(part.shape) != len(value.shape):
        return False
    return all(a == b for a, b in zip(part.shape, value.shape, strict=True))
