"""Int8 attention alone, on the queries, keys and values that the reference gave it.

Quantizing is elementwise and correctly rounded, so every correct backend finds the same codes of queries, keys and
values, and the same sums for the scores. What is left is counted, with u = 2**-24:

* a score: ``3u |product| + u |score|``; where the mask hides a key its score is lost in the mask's rounding;
* a power of e: the error of its exponent, and ``6u`` (``exp`` of any backend is at most 2 units in the last place off);
* a weight before it is rounded: that, and the error of the largest weight, and ``3u``. A weight so close to a rounding
  edge may fall on either side; what its value adds is then added to the bound;
* the result: the errors of the largest weight and of the sum of powers (``(keys + 3) u`` for the sum itself), and
  ``4u``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from edgeq.errors import FormatError
from edgeq.export.ops.low_bit_linear import quantize_activation
from edgeq.export.ops.registry import is_low_bit, reads_matrix
from edgeq.formats.low_bit import ACTIVATION_LEVELS
from edgeq.parity.reference import RecordedAttention
from edgeq.parity.rules.rule import Allowed

_U = 2.0**-24
_HIDDEN = -1e30
"""A mask below this hides a key whatever its score."""
_UNDERFLOW = -88.0
"""Powers of e from here on are no normal float32, and are 0 in kernels."""


@dataclasses.dataclass(frozen=True)
class AttentionCase:
    """One attention and the inputs that the reference gave it.

    Attributes:
        index: Place among the attentions of the graph.
        layer: What the reference recorded.
    """

    index: int
    layer: RecordedAttention

    @property
    def feed(self) -> dict[str, np.ndarray]:
        """Inputs of its node in the isolated graph."""
        return {f"input_{self.index}_{place}": value for place, value in enumerate(self.layer.inputs)}

    @property
    def output_name(self) -> str:
        """Name of its output in the isolated graph."""
        return f"output_{self.index}"


def isolate_attention(
    model: onnx.ModelProto, layers: Mapping[str, RecordedAttention]
) -> tuple[onnx.ModelProto, list[AttentionCase]]:
    """Builds a model in which every int8 attention has inputs and an output of its own.

    Args:
        model: The exported model.
        layers: The int8 attention of the reference, by module name.

    Returns:
        The model and its cases in graph order.

    Raises:
        FormatError: If a node belongs to no module of the reference, or a module to no node.
    """
    nodes = {node.name.split("/")[0]: node for node in model.graph.node if is_low_bit(node) and not reads_matrix(node)}
    if nodes.keys() != layers.keys():
        odd = sorted(nodes.keys() ^ layers.keys())[0]
        raise FormatError(f"attention {odd} is int8 in only one of the checkpoint and the ONNX model; export it again")
    alone, inputs, outputs = [], [], []
    cases: list[AttentionCase] = []
    for name, node in nodes.items():
        case = AttentionCase(len(cases), layers[name])
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = list(case.feed)
        copy.output[0] = case.output_name
        alone.append(copy)
        cases.append(case)
        for value_name, value in case.feed.items():
            shape = ["batch", *(("sequence", value.shape[-1]) if value.ndim == 3 else (1, 1, "sequence"))]
            inputs.append(helper.make_tensor_value_info(value_name, onnx.TensorProto.FLOAT, shape))
        shape = ["batch", "sequence", layers[name].output.shape[-1]]
        outputs.append(helper.make_tensor_value_info(case.output_name, onnx.TensorProto.FLOAT, shape))
    graph = helper.make_graph(alone, "isolated", inputs, outputs)
    functions = [function for function in model.functions if function.name in {node.op_type for node in alone}]
    made = helper.make_model(graph, opset_imports=model.opset_import, functions=functions, ir_version=model.ir_version)
    return made, cases


def allowed_attention(layer: RecordedAttention) -> Allowed:
    """Computes the exact result of an attention and how far a backend may be from it."""
    mask = layer.inputs[3].astype(np.float64)
    (q, q_scale), (k, k_scale), (v, v_scale) = (quantize_activation(_by_head(x, layer.heads)) for x in layer.inputs[:3])
    factor = ((q_scale * np.float32(layer.scale)) * k_scale.swapaxes(-1, -2)).astype(np.float64)
    product = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2)) * factor
    hidden = np.broadcast_to(mask < _HIDDEN, product.shape)
    score = np.where(hidden, mask, product + mask)
    score_error = np.where(hidden, 0.0, _U * (3 * np.abs(product) + np.abs(score)))
    exponent = score - score.max(-1, keepdims=True)
    power = np.where(exponent < _UNDERFLOW, 0.0, np.exp(np.maximum(exponent, _UNDERFLOW)))
    peak_error = _largest(score_error, where=power > 0.5)
    power_error = np.where(power > 0, score_error + peak_error + _U * (np.abs(exponent) + 6), 0.0)  # relative, as below
    weight = power * v_scale.astype(np.float64).swapaxes(-1, -2)
    largest = weight.max(-1, keepdims=True)
    largest_error = _largest(power_error + _U, where=weight > largest / 2)
    steps = weight * (ACTIVATION_LEVELS / largest)
    steps_error = np.where(weight > 0, steps * (power_error + largest_error + 3 * _U), 0.0)
    near = np.abs(steps - (np.floor(steps) + 0.5)) <= steps_error
    total, values = power.sum(-1, keepdims=True), v.astype(np.float64)
    total_error = (power * power_error).sum(-1, keepdims=True) / total + (power.shape[-1] + 3) * _U
    result_factor = largest / ACTIVATION_LEVELS / total
    exact = (np.rint(steps) @ values) * result_factor
    bound = np.abs(exact) * (largest_error + total_error + 4 * _U)
    bound += (near.astype(np.float64) @ np.abs(values)) * result_factor
    proven = int((bound < 0.5 * result_factor).sum())
    return Allowed(_by_token(exact), _by_token(bound), int(near.sum()), proven)


def _largest(error: np.ndarray, *, where: np.ndarray) -> np.ndarray:
    return np.where(where, error, 0.0).max(-1, keepdims=True)


def _by_head(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _by_token(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
