"""The layers of an exported graph, and copies of the graph that show every layer's result.

A layer is a module of the checkpoint without parts that the graph computes. Nodes carry the names of modules, so
the tensors that go into a layer and come out of it are known; what lies between two layers (attention, residual
sums) goes with the layer that reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from edgeq.export.ops.registry import reads_matrix

_GIVEN = "@given"
_MOVES = frozenset(
    {"Cast", "Concat", "Expand", "Gather", "Identity", "Range", "Reshape", "Shape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
"""Operators that compute nothing: not what someone looks for between two layers."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a graph.

    Attributes:
        name: Module name.
        node: The node that makes its result.
        value: Name of the tensor that it reads; "" if that is no tensor of floats or is given to the graph.
        output: Name of the tensor that it makes.
        between: Operators that make ``value`` from the results of other layers.
        width: Terms of the longest sum behind one of its results.
    """

    name: str
    node: onnx.NodeProto
    value: str
    output: str
    between: tuple[str, ...]
    width: int


def layers_of(graph: onnx.GraphProto, modules: Container[str]) -> list[Layer]:
    """Returns the layers of a graph in the order in which it computes them.

    Args:
        graph: An exported graph.
        modules: Names of the modules that may be layers.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    given = {value.name for value in graph.input}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        module, _, operator = node.name.partition("/")
        if operator and module in modules:
            groups.setdefault(module, []).append(node)
    outputs = {nodes[-1].output[0] for nodes in groups.values()}
    producers = {name: node for node in graph.node for name in node.output}
    layers = []
    for module, nodes in groups.items():
        made = {name for node in nodes for name in node.output}
        read = next((n for node in nodes for n in node.input if n and n not in constants and n not in made), None)
        if read is None:  # it makes a matrix of others, as a part of what reads that matrix
            continue
        is_lookup = nodes[0].op_type in ("Gather", "LowBitEmbedding")
        value = "" if is_lookup or read in given else read
        between = () if value in outputs else tuple(_operators_before(value, producers, outputs))
        width = max([1, *(_terms(node, constants) for node in nodes)])
        layers.append(Layer(module, nodes[-1], value, nodes[-1].output[0], between, width))
    return layers


def tapped(
    model: onnx.ModelProto, values: Mapping[str, np.ndarray], *, batch: int, tokens: int
) -> onnx.ModelProto:
    """Returns a copy of a model whose outputs are also the named tensors.

    Args:
        model: A model with its weights.
        values: The reference's values of those tensors; they say types and shapes.
        batch: Texts of the reference's run.
        tokens: Tokens of each.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    sizes = _sizes(copy.graph, batch, tokens)
    copy.graph.output.extend(_info(name, value, sizes) for name, value in values.items() if name not in present)
    return copy


def cut(model: onnx.ModelProto, values: Mapping[str, np.ndarray], *, batch: int, tokens: int) -> onnx.ModelProto:
    """Returns a copy of a model cut at the named tensors: each is an output, and what reads it reads an input instead.

    So every piece computes its result from what the reference gave the piece, whatever the others do.

    Args:
        model: A model with its weights.
        values: The reference's values of those tensors.
        batch: Texts of the reference's run.
        tokens: Tokens of each.
    """
    copy = tapped(model, values, batch=batch, tokens=tokens)
    sizes = _sizes(copy.graph, batch, tokens)
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if name in values:
                node.input[index] = name + _GIVEN
    copy.graph.input.extend(_info(name + _GIVEN, value, sizes) for name, value in values.items())
    return copy


def given(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what the further inputs of a model that was cut at ``values`` take."""
    return {name + _GIVEN: value for name, value in values.items()}


def _operators_before(
    name: str, producers: Mapping[str, onnx.NodeProto], outputs: Container[str]
) -> Sequence[str]:
    """Operators between the results of layers and a tensor, the nearest first."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        node = producers.get(waiting.pop(0))
        if node is not None:
            if node.op_type not in _MOVES:
                found[node.op_type] = None
            waiting += [source for source in node.input if source not in outputs]
    return list(found)


def _terms(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int:
    if reads_matrix(node):
        return next(int(attribute.i) for attribute in node.attribute if attribute.name == "K")
    if node.op_type == "Gather":
        return 1
    return max((max(constants[name].dims, default=1) for name in node.input if name in constants), default=1)


def _sizes(graph: onnx.GraphProto, batch: int, tokens: int) -> dict[tuple[int, int], str]:
    """Names of the sizes that vary, by axis and size, as the inputs have them."""
    ids = next(value for value in graph.input if value.name == "input_ids")
    names = [dimension.dim_param for dimension in ids.type.tensor_type.shape.dim]
    return {(0, batch): names[0], (1, tokens): names[1]}


def _info(name: str, value: np.ndarray, sizes: Mapping[tuple[int, int], str]) -> onnx.ValueInfoProto:
    # Any other size, such as that of what is broadcast or flattened, holds for this run.
    shape = [sizes.get((axis, size), size) for axis, size in enumerate(value.shape)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)
