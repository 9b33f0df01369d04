"""Products of constants: factors that are mixed, decoded or turned round before any input comes.

A model with shared cores holds ``S_i = P_i C`` as two small tensors. What depends on no input is computed here, once,
and stored as a weight; only layers then remain in the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import onnx

from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.packing import unpack
from edgeq.targets.compiler.graph import GraphView, attributes

Evaluate = Callable[[list[np.ndarray], dict[str, object]], np.ndarray]


def fold_constants(view: GraphView) -> int:
    """Replaces nodes that read nothing but initializers by their values.

    A matrix that is only transposed for a matmul stays, since matmuls read either orientation.
    """
    count = 0
    for node in list(view.graph.node):
        known = _EVALUATE.get(node.op_type)
        if known is None or not node.input or any(name not in view.initializers for name in node.input):
            continue
        if node.op_type == "Transpose" and _feeds_products_only(view, node):
            continue
        inputs = [onnx.numpy_helper.to_array(view.initializers[name]) for name in node.input]
        value = np.ascontiguousarray(known(inputs, attributes(node)))
        # Graphs of one model share their weights by name, so another value needs another name.
        name = f"{node.output[0]}.{hashlib.sha256(value.tobytes()).hexdigest()[:16]}"
        view.add_initializer(onnx.numpy_helper.from_array(value, name))
        for reader in view.graph.node:
            reader.input[:] = [name if source == node.output[0] else source for source in reader.input]
        view.graph.node.remove(node)
        view.refresh()
        count += 1
    return count


def _feeds_products_only(view: GraphView, transpose: onnx.NodeProto) -> bool:
    readers = [node for node in view.graph.node if transpose.output[0] in node.input]
    return all(
        node.op_type == "MatMul" and node.input[1] == transpose.output[0] and node.input[0] not in view.initializers
        for node in readers
    )


def _transpose(inputs: list[np.ndarray], values: dict[str, object]) -> np.ndarray:
    return inputs[0].transpose(values.get("perm"))  # type: ignore[call-overload]  # a list of axes or None


def _reshape(inputs: list[np.ndarray], values: dict[str, object]) -> np.ndarray:
    data, shape = inputs
    if not values.get("allowzero"):
        shape = np.array([data.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])
    return data.reshape(shape)


def _matmul(inputs: list[np.ndarray], _: dict[str, object]) -> np.ndarray:
    # Rounded once, from float64, so that the order of a BLAS's sums does not show in the weights.
    return (inputs[0].astype(np.float64) @ inputs[1].astype(np.float64)).astype(np.float32)


def _decode(inputs: list[np.ndarray], values: dict[str, object]) -> np.ndarray:
    ids, packed, scale = inputs
    rows, columns, bits = (int(str(values[name])) for name in ("N", "K", "bits"))
    matrix = PackedMatrix(rows, columns, bits, float(str(values["zero_point"])), scale.size)
    codes = unpack(packed, bits, rows=rows, columns=columns)
    centred = codes[ids].astype(np.float32) - np.float32(matrix.zero_point)
    decoded: np.ndarray = np.broadcast_to(scale, (rows,))[ids][..., None] * centred
    return decoded


def _range(inputs: list[np.ndarray], _: dict[str, object]) -> np.ndarray:
    return np.arange(*(item.item() for item in inputs), dtype=inputs[0].dtype)


_EVALUATE: dict[str, Evaluate] = {
    "LowBitEmbedding": _decode,
    "MatMul": _matmul,
    "Range": _range,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
