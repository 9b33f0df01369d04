"""Each low-bit operator alone, on the input that the reference gave it.

The layer is taken as the checkpoint has it, so weights that an export damaged show as well. Given the same
input, every correct backend finds the same int8 codes and the same integer sums; what is
left are the roundings of the float arithmetic around them, which can be counted. With u = 2**-24:

* quantized activations: ``|error| <= 4u |sum * factor| + 2u |y|``, where factor = scale * a_scale. The sum
  itself is exact, so the bound does not grow with K. A code within 4 ulp of a rounding edge may fall on
  either side; its weight is then added to the bound of that row.
* weight-only: ``|error| <= (K + 3) u * sum |w x| + 2u |y|``, whatever the order of the sum.
* embeddings: one rounded product, so every bit must agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from edgeq.errors import FormatError, UnsupportedError
from edgeq.export.ops import OPERATORS
from edgeq.export.ops.low_bit_linear import integer_sums, quantize_activation
from edgeq.export.ops.registry import is_low_bit, reads_matrix
from edgeq.formats.packing import unpack
from edgeq.parity.reference import RecordedLayer
from edgeq.parity.rules.rule import Allowed, OperatorCase, OperatorOutputs, Rule
from edgeq.results import Check

_U = 2.0**-24
_EDGE_ULPS = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One operator and the input that the reference gave it.

    Attributes:
        index: Place among the low-bit nodes of the graph.
        layer: The layer as the checkpoint has it.
        value: Its input as ``[1, rows, K]`` or ``[1, rows]``.
        output: The reference's output as ``[1, rows, N]``.
    """

    index: int
    layer: RecordedLayer
    value: np.ndarray
    output: np.ndarray

    @property
    def input_name(self) -> str:
        """Name of the graph input that takes ``value``."""
        return f"input_{self.index}"

    @property
    def output_name(self) -> str:
        """Name of the graph output."""
        return f"output_{self.index}"


class Isolated(Rule):
    """Each low-bit operator on the reference's own input gives what it may."""

    name = "isolated"

    def of_operators(self, operators: OperatorOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_operators`."""
        return [check_isolated(operators.stage, operators.cases, operators.limits, operators.outputs)]


def isolate(model: onnx.ModelProto, layers: Mapping[str, RecordedLayer]) -> tuple[onnx.ModelProto, list[Case]]:
    """Builds a model in which every low-bit node has an input and an output of its own.

    Args:
        model: The exported model, with its weights.
        layers: The low-bit layers of the reference, by module name.

    Returns:
        The model, with inputs ``[batch, sequence, ...]``, and its cases in graph order.

    Raises:
        FormatError: If a node belongs to no layer of the reference.
        UnsupportedError: If a low-bit layer of the reference became something else in the model.
    """
    nodes = [node for node in model.graph.node if reads_matrix(node)]
    names = [node.name.split("/")[0] for node in nodes]
    for node, name in zip(nodes, names, strict=True):
        if name not in layers:
            raise FormatError(f"node {node.name} of the ONNX model is no low-bit layer of the checkpoint")
    for node in model.graph.node:
        name = node.name.split("/")[0]
        if name in layers and not is_low_bit(node) and not _scales_rows(node, layers[name], names):
            raise UnsupportedError(
                f"layer {name} is packed in the checkpoint, but the ONNX model computes it by {node.op_type}"
            )
    rows = max((_row_count(layers[name]) for name in names), default=1)
    cases: list[Case] = []
    alone = []
    for node, name in zip(nodes, names, strict=True):
        layer = layers[name]
        width = None if layer.kind == "LowBitEmbedding" else layer.format.matrix.columns
        value = _rows_of(layer.value, rows, width=width)
        case = Case(len(cases), layer, value, _rows_of(layer.output, rows, width=layer.output.shape[-1]))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.output[0] = case.input_name, case.output_name
        cases.append(case)
        alone.append(copy)
    return _model_of(model, alone, cases), cases


def _scales_rows(node: onnx.NodeProto, layer: RecordedLayer, looked_up: Sequence[str]) -> bool:
    """Whether a node is the factor of a table that the graph does look up by a low-bit operator."""
    return layer.kind == "LowBitEmbedding" and node.op_type == "Mul" and layer.name in looked_up


def _rows_of(value: np.ndarray, rows: int, *, width: int | None) -> np.ndarray:
    """Brings a recorded array to ``[1, rows, width]`` (``[1, rows]`` for ids), repeating rows as needed."""
    flat = value.reshape(-1) if width is None else value.reshape(-1, width)
    if len(flat) == rows:
        return flat[None]  # the recorded array itself
    repeated: np.ndarray = np.take(flat, np.arange(rows) % len(flat), axis=0)[None]
    return repeated


def allowed(case: Case) -> Allowed:
    """Computes the exact result of a case and how far a backend may be from it."""
    layer, matrix = case.layer, case.layer.format.matrix
    if layer.kind == "LowBitEmbedding":
        attributes = {
            "N": matrix.rows,
            "K": matrix.columns,
            "bits": matrix.bits,
            "zero_point": matrix.zero_point,
        }
        exact = OPERATORS[layer.kind].reference(case.value, *layer.constants, **attributes).astype(np.float64)
        return Allowed(exact, np.zeros_like(exact), 0, exact.size)
    packed, scale, bias = layer.constants[:3]
    codes = unpack(packed, matrix.bits, rows=matrix.rows, columns=matrix.columns)
    levels = codes.astype(np.float64) - matrix.zero_point
    if layer.format.activation == "none":
        x = case.value.astype(np.float64)
        exact = (x @ levels.T) * scale.astype(np.float64) + bias
        terms = (np.abs(x) @ np.abs(levels).T) * scale
        return Allowed(exact, (matrix.columns + 3) * _U * terms + 2 * _U * np.abs(exact), 0, 0)
    given = layer.constants[3] if layer.format.activation == "static" else None
    q, a_scale = quantize_activation(case.value, given)
    total = integer_sums(q, packed, matrix)
    factor = np.abs(scale * a_scale).astype(np.float64)  # scales are positive; a bound must be, too
    exact = total * factor + bias
    near = _near_an_edge(case.value, given)
    rounding = 4 * _U * np.abs(total * factor) + 2 * _U * np.abs(exact)
    bound = rounding + (near.astype(np.float64) @ np.abs(levels).T) * factor
    step = 1.0 if float(matrix.zero_point).is_integer() else 0.5
    return Allowed(exact, bound, int(near.sum()), int((bound < 0.5 * step * factor).sum()))


def check_isolated(
    stage: str, cases: Sequence[OperatorCase], limits: Sequence[Allowed], outputs: Sequence[np.ndarray]
) -> Check:
    """Applies the rule to the outputs of one backend, in the order of the cases."""
    share, worst, broken = 0.0, "", []
    for case, limit, got in zip(cases, limits, outputs, strict=True):
        if got.shape != limit.exact.shape or not np.isfinite(got).all():
            found = np.inf
        else:
            error = np.abs(got.astype(np.float64) - limit.exact)
            # An error of zero is allowed where the bound is zero; anything else there is out of bounds.
            found = float(
                np.max(np.divide(error, limit.bound, out=np.where(error > 0, np.inf, 0.0), where=limit.bound > 0))
            )
        if found > 1:
            broken.append(case.layer.name)
        if found >= share:
            share, worst = found, case.layer.name
    results = sum(limit.exact.size for limit in limits)
    proven, edges = sum(limit.proven for limit in limits), sum(limit.edges for limit in limits)
    if broken:
        detail = (
            f"{len(broken)} of {len(cases)} operators are out of bounds, first {broken[0]}, "
            f"worst {worst} (error {share:.3g} times its bound)"
        )
    else:
        detail = (
            f"{len(cases)} operators within their bounds, largest error {share:.2f} of it ({worst}); "
            f"{proven / max(1, results):.0%} of the integer sums proven equal, {edges} codes near an edge"
        )
    measured: dict[str, float | int | str] = {
        "share_of_bound": share,
        "worst": worst,
        "operators": len(cases),
    }
    measured |= {"edges": edges, "proven": proven, "results": results}
    return Check(stage, "isolated", not broken, detail, measured)


def _near_an_edge(x: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Tells which activations lie within 4 ulp of a value where rounding goes to the next code."""
    _, a_scale = quantize_activation(x, given)
    if given is None:
        largest = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-30))
        inverse = np.float32(127) / largest
    else:
        inverse = np.float32(1) / a_scale
    steps = x.astype(np.float64) * inverse.astype(np.float64)
    distance = np.abs(steps - (np.floor(steps) + 0.5))
    near: np.ndarray = distance <= _EDGE_ULPS * np.spacing(np.abs(steps).astype(np.float32)).astype(np.float64)
    return near


def _row_count(layer: RecordedLayer) -> int:
    return int(layer.output.size // layer.output.shape[-1])


def _model_of(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], cases: Sequence[Case]) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    free = ["batch", "sequence"]
    inputs, outputs = [], []
    for case in cases:
        kind = helper.np_dtype_to_tensor_dtype(case.value.dtype)
        inputs.append(helper.make_tensor_value_info(case.input_name, kind, [*free, *case.value.shape[2:]]))
        width = case.output.shape[-1]
        outputs.append(helper.make_tensor_value_info(case.output_name, onnx.TensorProto.FLOAT, [*free, width]))
    constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(nodes, "isolated", inputs, outputs, constants)
    return helper.make_model(
        graph, opset_imports=model.opset_import, functions=list(model.functions), ir_version=model.ir_version
    )
