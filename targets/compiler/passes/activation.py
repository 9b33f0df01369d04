"""Activations: ``x * sigmoid(x)`` as one node, and a linear layer that applies its activation in registers."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes

_EPILOGUES = {"Gelu": {"none": "gelu", "tanh": "gelu_tanh"}, "Relu": "relu", "Silu": "silu", "Tanh": "tanh"}
_LINEAR = ("LowBitLinear",)


def name_gates(view: GraphView) -> int:
    """Replaces ``Mul(x, Sigmoid(x))`` by ``Silu(x)``, which the standard has from version 24 on."""
    count = 0
    for gate in [node for node in view.graph.node if node.op_type == "Sigmoid"]:
        product = view.only_consumer(gate.output[0])
        if product is None or product.op_type != "Mul" or sorted(product.input) != sorted([*gate.input, *gate.output]):
            continue
        silu = onnx.helper.make_node("Silu", list(gate.input), list(product.output), name=product.name)
        view.replace([gate, product], silu)
        count += 1
    return count


def fuse_activations(view: GraphView) -> int:
    """Replaces ``Gelu(LowBitLinear(x))`` and its like by one ``LowBitLinear`` with an ``epilogue`` attribute."""
    count = 0
    for node in [n for n in view.graph.node if n.op_type in _LINEAR]:
        consumer = view.only_consumer(node.output[0])
        if consumer is None or consumer.op_type not in _EPILOGUES:
            continue
        fused = onnx.NodeProto()
        fused.CopyFrom(node)
        fused.output[0] = consumer.output[0]
        epilogue = _EPILOGUES[consumer.op_type]
        if isinstance(epilogue, dict):
            epilogue = epilogue[str(attributes(consumer).get("approximate", "none"))]
        fused.attribute.append(onnx.helper.make_attribute("epilogue", epilogue))
        view.replace([node, consumer], fused)
        count += 1
    return count
