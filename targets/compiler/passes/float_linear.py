"""Layers that stayed float: a matmul with a constant matrix and its bias become one node."""

from __future__ import annotations

import onnx

from edgeq.targets.compiler.graph import GraphView, attributes

FLOAT_LINEAR = "FloatLinear"


def fuse_float_linear(view: GraphView) -> int:
    """Replaces ``MatMul(x, W)``, ``Add(MatMul(x, W), b)`` and ``Gemm(x, W, b)`` by ``FloatLinear(x, W[, b])``.

    The attribute ``transposed`` is 1 where ``W`` is stored ``[N, K]``: in ``Gemm``, or behind a ``Transpose``.
    """
    count = 0
    for node in list(view.graph.node):
        if node.op_type == "MatMul" and node.input[1] in view.initializers:
            _replace_matmul(view, node, node.input[1], transposed=0)
        elif node.op_type == "MatMul" and (matrix := _turned_matrix(view, node.input[1])):
            _replace_matmul(view, node, matrix, transposed=1)
        elif node.op_type == "Gemm" and _is_plain_gemm(view, node):
            transposed = int(attributes(node).get("transB", 0) == 1)
            _replace(view, [node], list(node.input), transposed)
        else:
            continue
        count += 1
    view.remove_unused()
    return count


def _turned_matrix(view: GraphView, name: str) -> str | None:
    """Returns the constant matrix that ``name`` is the transpose of."""
    node = view.producer(name)
    if node is None or node.op_type != "Transpose" or node.input[0] not in view.initializers:
        return None
    return str(node.input[0]) if len(view.initializers[node.input[0]].dims) == 2 else None


def _replace_matmul(view: GraphView, node: onnx.NodeProto, matrix: str, *, transposed: int) -> None:
    consumer = view.only_consumer(node.output[0])
    if consumer is not None and consumer.op_type == "Add":
        bias = next((name for name in consumer.input if name != node.output[0]), "")
        if bias in view.initializers and len(view.initializers[bias].dims) == 1:
            _replace(view, [node, consumer], [node.input[0], matrix, bias], transposed)
            return
    _replace(view, [node], [node.input[0], matrix], transposed)


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
