"""An exported model whose matrices are decoded once, by the bodies of its own operators."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import helper

from edgeq.backends.onnx_files import load_model
from edgeq.backends.onnx_runtime import OnnxRuntime
from edgeq.export.ops import low_bit_linear
from edgeq.formats.low_bit import OP_DOMAIN, OP_VERSION

_PACKED = low_bit_linear.INPUTS.index("W_packed")
_DECODED = low_bit_linear.DECODED
_DATA = "decoded.bin"
_ALIGNMENT = 4096


@contextlib.contextmanager
def open_decoded(path: Path) -> Iterator[OnnxRuntime]:
    """Opens an exported model for many calls in ONNX Runtime, with little memory.

    Args:
        path: The file; one without packed matrices is opened as it is.
    """
    model = load_model(path, weights=False)
    if not any(_is_matmul(node) for node in model.graph.node):
        yield OnnxRuntime(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-decoded-") as folder:
        yield OnnxRuntime(write_decoded(load_model(path), Path(folder)), lean=True)


def write_decoded(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes a model for ONNX Runtime alone, whose matrices are decoded already.

    ONNX Runtime decodes constants when it loads a model, all of them at once, and holds 8 to 30 bytes a weight. Here
    one matrix after the other is decoded, by that part of the operator's body which reads nothing else; a file takes 4
    bytes a weight, and ONNX Runtime maps it. The other part of the body computes the same bits from it as the whole.

    Args:
        model: An exported model with its weights; it is changed.
        folder: An empty folder for the files.

    Returns:
        The file, for a lean :class:`OnnxRuntime`.
    """
    bodies = {
        body.overload: body for body in model.functions if (body.domain, body.name) == (OP_DOMAIN, low_bit_linear.NAME)
    }
    decoders = {overload: _decoder(body) for overload, body in bodies.items()}
    packed = {tensor.name: tensor for tensor in model.graph.initializer}
    decoded: dict[str, onnx.TensorProto] = {}
    with (folder / _DATA).open("wb") as data:
        for node in model.graph.node:
            if _is_matmul(node):
                matrix = node.input[_PACKED]
                name = f"{matrix}/decoded"  # layers may share a matrix
                if name not in decoded:
                    array = onnx.numpy_helper.to_array(packed[matrix])
                    array = _decode(decoders[node.overload], node, array, ir_version=model.ir_version)
                    decoded[name] = _written(name, array, data)
                node.input[_PACKED] = name
    for body in bodies.values():
        _read_decoded(body)
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *decoded.values()])
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="others.bin")
    return folder / "model.onnx"


def _is_matmul(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type) == (OP_DOMAIN, low_bit_linear.NAME)


def _decoder(body: onnx.FunctionProto) -> onnx.FunctionProto:
    """Returns the part of a body that reads nothing but the packed matrix."""
    return helper.make_function(
        OP_DOMAIN,
        "Decode",
        [body.input[_PACKED]],
        [_DECODED],
        _needed(body.node, [_DECODED]),
        body.opset_import,
        body.attribute,
    )


def _read_decoded(body: onnx.FunctionProto) -> None:
    """Takes that part out of a body, whose input is the decoded matrix from now on."""
    rest = _needed([node for node in body.node if _DECODED not in node.output], body.output)
    del body.node[:]
    body.node.extend(rest)
    body.input[_PACKED] = _DECODED


def _needed(nodes: Iterable[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Returns the nodes that some values are made by, in their order."""
    wanted, found = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _decode(body: onnx.FunctionProto, node: onnx.NodeProto, packed: np.ndarray, *, ir_version: int) -> np.ndarray:
    """Runs the decoding part of a body with the attributes of a node."""
    graph = helper.make_graph(
        [helper.make_node("Decode", ["packed"], [_DECODED], domain=OP_DOMAIN)],
        "decode",
        [helper.make_tensor_value_info("packed", onnx.TensorProto.UINT8, packed.shape)],
        [helper.make_tensor_value_info(_DECODED, onnx.TensorProto.FLOAT, [None, None])],
    )
    graph.node[0].attribute.extend(one for one in node.attribute if one.name in body.attribute)
    imports = [helper.make_opsetid(OP_DOMAIN, OP_VERSION), *body.opset_import]
    model = helper.make_model(graph, opset_imports=imports, functions=[body], ir_version=ir_version)
    return OnnxRuntime(model.SerializeToString(), lean=True)({"packed": packed})[_DECODED]


def _written(name: str, array: np.ndarray, data: BinaryIO) -> onnx.TensorProto:
    """Writes a matrix behind those before it, where pages begin; returns the constant that it is."""
    data.seek(-data.tell() % _ALIGNMENT, os.SEEK_CUR)
    place = {"location": _DATA, "offset": str(data.tell()), "length": str(array.nbytes)}
    array.tofile(data)
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return tensor
