r"""One three-dimensional ``Attention`` node a layer, instead of one wrapped in reshapes and transposes.

torch exports scaled dot-product attention at opset 23 as::

    q [B,S,H*D] -> Reshape [B,S,H,D] -> Transpose [B,H,S,D] \
    k, v likewise                                             Attention -> Transpose -> Reshape [B,S,H*D]

The standard operator also takes ``[B, S, H*D]`` with the number of heads as attributes and then does the
same split itself, so the eight surrounding nodes say nothing.
"""

from __future__ import annotations

import onnx_ir as ir

_SWAP_HEADS_AND_ROWS = (0, 2, 1, 3)


def merge_heads(model: ir.Model) -> int:
    """Rewrites every ``Attention`` on split heads to the form that takes ``[B, S, H*D]``.

    Args:
        model: Changed in place.

    Returns:
        The number of nodes rewritten. A node whose surroundings differ is left as it is.
    """
    nodes = [node for node in model.graph if node.op_type == "Attention" and node.domain == ""]
    return sum(_merge(model.graph, node) for node in nodes)


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    flat = [_unsplit(value) for value in node.inputs[:3]]
    query_heads, key_heads, value_heads = (_heads(value) for value in node.inputs[:3])
    joined = _joined(node.outputs[0])
    if joined is None or len(node.outputs) > 1 or None in flat or "q_num_heads" in node.attributes:
        return False
    if query_heads is None or key_heads is None or key_heads != value_heads:
        return False
    attributes = list(node.attributes.values())
    attributes += [ir.AttrInt64("q_num_heads", query_heads), ir.AttrInt64("kv_num_heads", key_heads)]
    merged = ir.Node(
        "",
        "Attention",
        [*flat, *node.inputs[3:]],
        attributes,
        outputs=[ir.Value(name=joined.name, type=joined.type, shape=joined.shape)],
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    graph.insert_before(node, merged)
    tail = [joined.producer(), *(use.node for use in node.outputs[0].uses()), node]
    joined.replace_all_uses_with(merged.outputs[0], replace_graph_outputs=True)
    graph.remove([dead for dead in tail if dead is not None], safe=True)
    return True


def _unsplit(value: ir.Value | None) -> ir.Value | None:
    """Returns ``[B, S, H*D]`` if ``value`` is Transpose(Reshape(it)) with shape ``[B, H, S, D]``."""
    transpose = value.producer() if value is not None else None
    if transpose is None or not _swaps_heads_and_rows(transpose):
        return None
    split = transpose.inputs[0]
    reshape = split.producer() if split is not None else None
    if reshape is None or reshape.op_type != "Reshape":
        return None
    flat = reshape.inputs[0]
    if flat is None or flat.shape is None or split is None or split.shape is None:
        return None
    if len(flat.shape) != 3 or len(split.shape) != 4:
        return None
    # Both shapes come from the tracer: batch and sequence must be kept, only the last axis may be split.
    return flat if flat.shape[:2] == split.shape[:2] else None


def _heads(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None or len(value.shape) != 4:
        return None
    heads = value.shape[1]
    return heads if isinstance(heads, int) else None


def _joined(value: ir.Value) -> ir.Value | None:
    """Returns Reshape(Transpose(``value``)) of shape ``[B, S, H*D]`` if that is all ``value`` is used for."""
    transpose = _only_consumer(value)
    if transpose is None or not _swaps_heads_and_rows(transpose):
        return None
    reshape = _only_consumer(transpose.outputs[0])
    if reshape is None or reshape.op_type != "Reshape":
        return None
    joined, split = reshape.outputs[0], transpose.outputs[0]
    if joined.shape is None or split.shape is None or len(joined.shape) != 3:
        return None
    return joined if joined.shape[:2] == split.shape[:2] else None


def _only_consumer(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _swaps_heads_and_rows(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == _SWAP_HEADS_AND_ROWS
