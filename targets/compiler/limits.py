"""How long a sequence may be: what the tables of positions in a graph allow, whatever a configuration claims.

An index into a table, or the place where a constant is cut off, is bounded by following the integers of the graph:
each is at most ``slope * length + offset``, with ``length`` the number of tokens. The longest sequence is the largest
length at which no index leaves its table.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from edgeq.targets.compiler.graph import GraphView, attributes
from edgeq.targets.compiler.passes.cache import TOKEN_POSITIONS
from edgeq.targets.compiler.passes.shared_table import PANEL_GATHER

_KEEPS_VALUES = frozenset({"Cast", "Expand", "Gather", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators whose result holds no other values than their first input."""
_ZERO_OR_ONE = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"})
_SMALL = 1 << 24
"""Constants with more entries are no positions, and are not looked at."""


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A value is at most ``slope * length + offset``, and at least 0."""

    slope: int
    offset: int


@dataclasses.dataclass(frozen=True)
class PositionLimit:
    """What the smallest table of positions allows.

    Attributes:
        rows: Its rows.
        longest: Most tokens of a sequence.
        table: Its name.
    """

    rows: int
    longest: int
    table: str


def position_limit(graph: onnx.GraphProto) -> PositionLimit | None:
    """Returns the limit that the tables of a graph set to the length of a sequence, or None if nothing sets one.

    Args:
        graph: A graph, before or after the passes of the compiler.
    """
    view = GraphView(graph)
    limits = [limit for node in graph.node if (limit := _limit_of(view, node)) is not None]
    return min(limits, key=lambda limit: limit.longest) if limits else None


def _limit_of(view: GraphView, node: onnx.NodeProto) -> PositionLimit | None:
    if node.op_type == "Slice" and node.input[0] in view.initializers:
        return _limit_of_slice(view, node)
    table = _table(view, node)
    if table is None:
        return None
    name, rows, index = table
    bound = _bound(view, index)
    if bound is None or bound.slope == 0:
        return None  # ids, which are checked one by one, or a constant
    return PositionLimit(rows, (rows - 1 - bound.offset) // bound.slope, name)


def _limit_of_slice(view: GraphView, node: onnx.NodeProto) -> PositionLimit | None:
    """A constant that is cut to the length of the text: positions ``[1, rows]``, or a table itself."""
    ends, axes = node.input[2], node.input[3] if len(node.input) > 3 else ""
    if ends in view.initializers:
        return None
    dims = list(view.initializers[node.input[0]].dims)
    values = _constant(view, axes)
    axis = int(values.reshape(-1)[0]) if values is not None and values.size else 0
    return PositionLimit(int(dims[axis]), int(dims[axis]), node.input[0])


def _table(view: GraphView, node: onnx.NodeProto) -> tuple[str, int, str] | None:
    """Returns name, rows and index of a look-up in a table of floats."""
    if node.op_type == "LowBitEmbedding":
        return node.input[1], int(str(attributes(node)["N"])), node.input[0]
    if node.op_type == PANEL_GATHER:
        return node.input[0], int(str(attributes(node)["rows"])), node.input[1]
    if node.op_type == "RotaryEmbedding" and len(node.input) > 3 and node.input[1] in view.initializers:
        return node.input[1], int(view.initializers[node.input[1]].dims[0]), node.input[3]
    tensor = view.initializers.get(node.input[0]) if node.op_type == "Gather" else None
    if tensor is None or len(tensor.dims) != 2 or attributes(node).get("axis", 0) != 0:
        return None
    return node.input[0], int(tensor.dims[0]), node.input[1]


def _bound(view: GraphView, name: str) -> _Bound | None:
    """Bounds an integer tensor; None for what is not followed, such as ids that a caller gives."""
    if (values := _constant(view, name)) is not None:
        return _Bound(0, int(values.max())) if values.size and values.min() >= 0 else None
    node = view.producer(name)
    if node is None:
        return None
    if node.op_type in _ZERO_OR_ONE:
        return _Bound(0, 1)
    if node.op_type in ("Shape", "Size"):
        return _Bound(1, 0)
    if node.op_type == "Slice" or node.op_type in _KEEPS_VALUES:
        return _bound(view, node.input[0])
    if node.op_type == "CumSum":
        inner = _bound(view, node.input[0])
        return _Bound(1, 0) if inner is not None and inner == _Bound(0, 1) else None
    if node.op_type == "Range":
        end = _bound(view, node.input[1])
        return None if end is None else _Bound(end.slope, end.offset - 1)
    if node.op_type == TOKEN_POSITIONS:
        return _Bound(1, int(str(attributes(node)["offset"])) - 1)
    if node.op_type in ("Add", "Mul"):
        return _of_two(node.op_type, _bound(view, node.input[0]), _bound(view, node.input[1]))
    return None


def _of_two(operator: str, left: _Bound | None, right: _Bound | None) -> _Bound | None:
    if left is None or right is None:
        return None
    if operator == "Add":
        return _Bound(left.slope + right.slope, left.offset + right.offset)
    for factor, other in ((left, right), (right, left)):
        if factor == _Bound(0, 1):
            return other
    return None


def _constant(view: GraphView, name: str) -> np.ndarray | None:
    tensor = view.initializers.get(name)
    if tensor is None or int(np.prod(tensor.dims, dtype=np.int64)) > _SMALL or tensor.data_location == tensor.EXTERNAL:
        return None
    values = onnx.numpy_helper.to_array(tensor)
    return values if values.dtype.kind in "iu" else None
