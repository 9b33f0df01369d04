"""``ai.edgeq::Int8Attention``: self-attention whose two matmuls are sums of integers.

For each head, with ``quantize`` as in ``LowBitLinear`` (dynamic: one symmetric int8 scale a row)::

    q, q_scale = quantize(Q)          k, k_scale = quantize(K)          v, v_scale = quantize(V)      one scale a token
    s[i, t] = (sum_d q[i, d] k[t, d]) * ((q_scale[i] * scale) * k_scale[t]) + mask[t]
    e[i, t] = exp(s[i, t] - max_t s[i, t])
    w[i, t] = e[i, t] * v_scale[t];   m = max_t w[i, t];   p[i, t] = round_half_even(w[i, t] * (127 / m))
    y[i, d] = (sum_t p[i, t] v[t, d]) * ((m / 127) / sum_t e[i, t])

Both sums are exact. What the weights of values are rounded to is relative to what each value adds at most, its scale
included, so that neither a long text nor a token of small values that everything looks at takes the grid for itself.
Every scale belongs to one token: a token that is hidden (its mask is so low that ``e`` is 0) changes nothing.

The body multiplies floats that hold integers: float32 adds them exactly for heads of up to 1040 columns; over tokens,
whose number nobody knows, they are summed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from edgeq.errors import FormatError
from edgeq.export.ops.body import Body
from edgeq.export.ops.low_bit_linear import quantize_activation
from edgeq.export.ops.operator import (
    NodeFormat,
    Operator,
    dimensions,
    inferred_attributes,
    operator_schema,
    schema_attribute,
    schema_input,
    set_float_output,
)
from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR, LARGEST_INT8_HEAD

NAME = "Int8Attention"
INPUTS = ["Q", "K", "V", "mask"]
ATTRIBUTES = ["num_heads", "scale"]


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, *, num_heads: int, scale: float
) -> np.ndarray:
    """Numpy meaning of the operator.

    Args:
        q: float32, ``[batch, queries, heads * head_size]``.
        k: float32, ``[batch, keys, heads * head_size]``.
        v: As ``k``.
        mask: float32 to add to scores, ``[batch, 1, 1, keys]``.
        num_heads: Number of heads.
        scale: Factor on the dot products.

    Returns:
        float32, of the shape of ``q``.

    Raises:
        FormatError: If the width is no multiple of ``num_heads``, or a head has more than 1040 columns.
    """
    head_size = q.shape[-1] // max(1, num_heads)
    if num_heads < 1 or q.shape[-1] != num_heads * head_size or head_size > LARGEST_INT8_HEAD:
        raise FormatError(
            f"{NAME} takes heads of 1 to {LARGEST_INT8_HEAD} columns, found width {q.shape[-1]} and {num_heads} heads"
        )

    def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return quantize_activation(x.reshape(*x.shape[:2], num_heads, head_size).transpose(0, 2, 1, 3))

    (q_codes, q_scale), (k_codes, k_scale), (v_codes, v_scale) = (quantized(x) for x in (q, k, v))
    sums = (q_codes.astype(np.float64) @ k_codes.astype(np.float64).swapaxes(-1, -2)).astype(np.float32)
    scores = sums * ((q_scale * np.float32(scale)) * k_scale.swapaxes(-1, -2)) + mask
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    weights = powers * v_scale.swapaxes(-1, -2)
    largest = weights.max(-1, keepdims=True)
    codes = np.rint(weights * (np.float32(ACTIVATION_LEVELS) / largest))
    total = (codes.astype(np.float64) @ v_codes.astype(np.float64)).astype(np.float32)
    y = total * (largest / np.float32(ACTIVATION_LEVELS) / powers.sum(-1, keepdims=True))
    return y.transpose(0, 2, 1, 3).reshape(q.shape)


def body(_: Sequence[NodeFormat], opset: int) -> onnx.FunctionProto:
    """Returns the operator's meaning in standard operators of ``opset`` (18 or later)."""
    build = Body()
    rest = build.constant(np.array([-1], np.int64), "last_axis")
    kept = build.constant(np.zeros(2, np.int64), "kept_axes")  # Reshape copies these two sizes
    split = build.node("Concat", [kept, build.size("num_heads", "heads"), rest], "split_shape", axis=0)
    limit = build.constant(np.float32(ACTIVATION_LEVELS), "limit")
    q, q_scale = _quantized(build, "Q", split, rest, limit)
    k, k_scale = _quantized(build, "K", split, rest, limit)
    v, v_scale = _quantized(build, "V", split, rest, limit)
    k_by_column, k_scales, v_scales = (
        build.node("Transpose", [name], f"{name}_swapped", perm=[0, 1, 3, 2]) for name in (k, k_scale, v_scale)
    )
    sums = build.node("MatMul", [q, k_by_column], "sums")
    scaled = build.node("Mul", [q_scale, build.attribute("scale", "score_factor", kind="float")], "q_factor")
    factor = build.node("Mul", [scaled, k_scales], "factor")
    scores = build.node("Add", [build.node("Mul", [sums, factor], "unmasked"), "mask"], "scores")
    peak = build.node("ReduceMax", [scores, rest], "peak", keepdims=1)
    powers = build.node("Exp", [build.node("Sub", [scores, peak], "below_peak")], "powers")
    weights = build.node("Mul", [powers, v_scales], "weights")
    largest = build.node("ReduceMax", [weights, rest], "largest", keepdims=1)
    inverse = build.node("Div", [limit, largest], "inverse")
    codes = build.node("Round", [build.node("Mul", [weights, inverse], "steps")], "codes")
    wide = [build.node("Cast", [name], f"{name}_wide", to=onnx.TensorProto.DOUBLE) for name in (codes, v)]
    total = build.node("Cast", [build.node("MatMul", wide, "total_wide")], "total", to=onnx.TensorProto.FLOAT)
    sum_of_powers = build.node("ReduceSum", [powers, rest], "sum_of_powers", keepdims=1)
    step = build.node("Div", [build.node("Div", [largest, limit], "step"), sum_of_powers], "result_factor")
    by_head = build.node("Mul", [total, step], "by_head")
    by_token = build.node("Transpose", [by_head], "by_token", perm=[0, 2, 1, 3])
    build.node("Reshape", [by_token, build.node("Shape", ["Q"], "shape_of_q")], "Y")
    return build.function(
        NAME,
        opset=opset,
        inputs=INPUTS,
        outputs=["Y"],
        attributes=ATTRIBUTES,
        doc="Y = softmax(Q K^T * scale + mask) V by head, with int8 queries, keys, values and weights of values",
    )


def _quantized(build: Body, name: str, split: str, axis: str, limit: str) -> tuple[str, str]:
    """Adds the codes of an input by head, ``[batch, heads, tokens, head_size]``, and their scales."""
    x = build.node("Transpose", [build.node("Reshape", [name, split], f"{name}_split")], f"{name}_heads",
                   perm=[0, 2, 1, 3])  # fmt: skip
    magnitude = build.node("Abs", [x], f"{name}_magnitude")
    floor = build.constant(np.float32(ACTIVATION_MAX_FLOOR), f"{name}_floor")
    largest = build.node(
        "Max", [build.node("ReduceMax", [magnitude, axis], f"{name}_peak", keepdims=1), floor], f"{name}_largest"
    )
    scale = build.node("Div", [largest, limit], f"{name}_scale")
    inverse = build.node("Div", [limit, largest], f"{name}_inverse")
    rounded = build.node("Round", [build.node("Mul", [x, inverse], f"{name}_steps")], f"{name}_rounded")
    lowest = build.constant(np.float32(-ACTIVATION_LEVELS), f"{name}_lowest")
    return build.node("Clip", [rounded, lowest, limit], f"{name}_codes"), scale


def _infer_shape(context: Any) -> None:
    heads = int(inferred_attributes(context, ["num_heads"]).get("num_heads", 0))
    shape = dimensions(context, 0)
    if heads < 1:
        raise onnx.shape_inference.InferenceError(f"[ShapeInferenceError] {NAME} of {heads} heads")
    if shape is None or not shape[-1].HasField("dim_value"):
        return
    width = shape[-1].dim_value
    if len(shape) != 3 or width % heads or not 1 <= width // heads <= LARGEST_INT8_HEAD:
        raise onnx.shape_inference.InferenceError(
            f"[ShapeInferenceError] {NAME} of {heads} heads got queries of rank {len(shape)} and width {width}"
        )
    set_float_output(context, shape[:-1], width)


_SCHEMA = operator_schema(
    NAME,
    __doc__ or "",
    inputs=[
        schema_input("Q", "T", "queries [batch, queries, heads * head_size]"),
        schema_input("K", "T", "keys [batch, keys, heads * head_size]"),
        schema_input("V", "T", "values, as K"),
        schema_input("mask", "T", "added to scores: [batch, 1, 1, keys]"),
    ],
    output="of the shape of Q",
    attributes=[
        schema_attribute("num_heads", "INT", "heads"),
        schema_attribute("scale", "FLOAT", "factor on the dot products"),
    ],
    infer=_infer_shape,
)

OPERATOR = Operator(schema=_SCHEMA, reference=reference, variant=None, body=body)
