"""Keys and values that a graph turns into int8 codes and scales, as the exporter writes it.

With ``m = max(max|x|, 1e-30)`` over the columns of a head: ``scale = m / 127`` and
``code = round_half_even(x * (127 / m))`` in -127..127. Kernels compute this and nothing else, so every number of it is
looked at.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR
from edgeq.targets.compiler.graph import GraphView, attributes


def states_behind(view: GraphView, codes: str, scales: str) -> str | None:
    """Returns the float tensor whose rows were turned into codes and scales.

    Args:
        view: The graph.
        codes: Name of the codes, int8 ``[..., head_size]``.
        scales: Name of the scales, float32 ``[..., 1]``.

    Returns:
        Its name, or None if codes or scales are made in another way.
    """
    cast = _made_by(view, codes, "Cast")
    clip = _made_by(view, cast.input[0], "Clip") if cast is not None else None
    rounded = _made_by(view, clip.input[0], "Round") if clip is not None else None
    product = _made_by(view, rounded.input[0], "Mul") if rounded is not None else None
    inverse = _made_by(view, product.input[1], "Div") if product is not None else None
    scale = _made_by(view, scales, "Div")
    if cast is None or clip is None or product is None or inverse is None or scale is None:
        return None
    limits = [_number(view, name) for name in clip.input[1:]]
    levels = [_number(view, name) for name in (inverse.input[0], scale.input[1])]
    if attributes(cast)["to"] != TensorProto.INT8 or limits != [-ACTIVATION_LEVELS, ACTIVATION_LEVELS]:
        return None
    if levels != [ACTIVATION_LEVELS] * 2 or inverse.input[1] != scale.input[0]:
        return None
    states = str(product.input[0])
    return states if _is_largest(view, scale.input[0], states) else None


def _is_largest(view: GraphView, name: str, states: str) -> bool:
    """Tells whether ``name`` is the largest magnitude of each row of ``states``, or the least that is one."""
    floor = _made_by(view, name, "Clip")
    peak = _made_by(view, floor.input[0], "ReduceMax") if floor is not None else None
    magnitude = _made_by(view, peak.input[0], "Abs") if peak is not None else None
    if floor is None or peak is None or magnitude is None:
        return False
    bounds = [_number(view, bound) for bound in floor.input[1:] if bound]
    is_row = _number(view, peak.input[1]) == -1 and attributes(peak).get("keepdims", 1) == 1
    return magnitude.input[0] == states and is_row and bounds == [float(np.float32(ACTIVATION_MAX_FLOOR))]


def _made_by(view: GraphView, name: str, kind: str) -> onnx.NodeProto | None:
    node = view.producer(name)
    return node if node is not None and node.op_type == kind else None


def _number(view: GraphView, name: str) -> float | None:
    """Returns the value of a constant, possibly in many copies; None for other tensors."""
    copies = _made_by(view, name, "Expand")
    tensor = view.initializers.get(name if copies is None else copies.input[0])
    values = numpy_helper.to_array(tensor) if tensor is not None and np.prod(tensor.dims) == 1 else None
    return None if values is None else float(values.reshape(-1)[0])
