"""Layers that stayed float: a product with a constant matrix and its bias become one node."""

from __future__ import annotations

import onnx

from edgeq.targets.graph import GraphView, attributes

FLOAT_LINEAR = "FloatLinear"


def fuse_float_linear(view: GraphView) -> None:
    """Replaces ``MatMul(x, W)``, ``Add(MatMul(x, W), b)`` and ``Gemm(x, W, b)`` by ``FloatLinear(x, W[, b])``.

    The attribute ``transposed`` is 1 where ``W`` is stored ``[N, K]``.
    """
    for node in list(view.graph.node):
        if node.op_type == "MatMul" and node.input[1] in view.initializers:
            _replace_matmul(view, node)
        elif node.op_type == "Gemm" and _is_plain_gemm(view, node):
            transposed = int(attributes(node).get("transB", 0) == 1)
            _replace(view, [node], list(node.input), transposed)


def _replace_matmul(view: GraphView, node: onnx.NodeProto) -> None:
    consumer = view.only_consumer(node.output[0])
    if consumer is not None and consumer.op_type == "Add":
        bias = next((name for name in consumer.input if name != node.output[0]), "")
        if bias in view.initializers and len(view.initializers[bias].dims) == 1:
            _replace(view, [node, consumer], [*node.input, bias], 0)
            return
    _replace(view, [node], list(node.input), 0)


def _is_plain_gemm(view: GraphView, node: onnx.NodeProto) -> bool:
    values = attributes(node)
    return (
        node.input[1] in view.initializers
        and values.get("alpha", 1.0) == 1.0
        and values.get("beta", 1.0) == 1.0
        and values.get("transA", 0) == 0
        and (len(node.input) < 3 or len(view.initializers[node.input[2]].dims) == 1)
    )


def _replace(view: GraphView, old: list[onnx.NodeProto], inputs: list[str], transposed: int) -> None:
    output = list(old[-1].output)
    view.replace(old, onnx.helper.make_node(FLOAT_LINEAR, inputs, output, name=old[0].name, transposed=transposed))
