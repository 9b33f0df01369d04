"""Linear layer followed by GELU: the activation is applied while the product is still in registers."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes

_EPILOGUES = {"none": "gelu", "tanh": "gelu_tanh"}
_LINEAR = ("LowBitLinear",)


def fuse_activations(view: GraphView) -> None:
    """Replaces ``Gelu(LowBitLinear(x))`` by one ``LowBitLinear`` with an ``epilogue`` attribute."""
    for node in [n for n in view.graph.node if n.op_type in _LINEAR]:
        consumer = view.only_consumer(node.output[0])
        if consumer is None or consumer.op_type != "Gelu":
            continue
        fused = onnx.NodeProto()
        fused.CopyFrom(node)
        fused.output[0] = consumer.output[0]
        epilogue = _EPILOGUES[str(attributes(consumer).get("approximate", "none"))]
        fused.attribute.append(onnx.helper.make_attribute("epilogue", epilogue))
        view.replace([node, consumer], fused)
