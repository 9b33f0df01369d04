"""Normalisations whose result a low-bit layer quantizes: one pass makes both the floats and the codes."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes
from edgeq.targets.compiler.passes.residual import RESIDUAL_LAYER_NORM

_NORMALISATIONS = ("LayerNormalization", "RMSNormalization", RESIDUAL_LAYER_NORM)


def quantize_in_normalisations(view: GraphView) -> int:
    """Sets the attribute ``quantized`` where a ``LowBitLinear`` with dynamic activations reads the result."""
    count = 0
    quantized = {
        node.input[0]
        for node in view.graph.node
        if node.op_type == "LowBitLinear" and attributes(node).get("activation") == "dynamic"
    }
    for node in view.graph.node:
        if node.op_type in _NORMALISATIONS and node.output[0] in quantized:
            node.attribute.append(onnx.helper.make_attribute("quantized", 1))
            count += 1
    return count
