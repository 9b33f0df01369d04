"""``ai.edgeq::LowBitLinear``: a Linear layer on packed low-bit weights.

``Y = X @ w.T + bias`` with ``w[n, k] = scale[n] * (code[n, k] - zero_point)`` and, unless ``activation``
is ``none``, X rounded to int8 first::

    dynamic:  m = max(max|x|, 1e-30) over the row;  a_scale = m / 127;  inv = 127 / m
    static:   a_scale = activation_scale;           inv = 1 / a_scale
    q = clip(round_half_even(x * inv), -127, 127)
    y = (sum_k (code - zero_point) * q) * (scale * a_scale) + bias        the sum is exact

    none:     y = (sum_k (code - zero_point) * x) * scale + bias          the sum is float32

The body multiplies floats that hold integers: MatMulInteger would need the zero point in uint8, which 0.5
and 1.5 are not. Float32 sums of integers are exact up to 2**24; a matrix that could exceed that (8 bits
with K > 1032) sums in float64 instead, so the result never depends on the order of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from edgeq.errors import FormatError
from edgeq.export.ops.body import Body
from edgeq.export.ops.operator import (
    MATRIX_ATTRIBUTES,
    NodeFormat,
    Operator,
    check_packed_shape,
    dimensions,
    inferred_attributes,
    operator_schema,
    schema_attribute,
    schema_input,
    set_float_output,
)
from edgeq.formats.low_bit import (
    ACTIVATION_LEVELS,
    ACTIVATION_MAX_FLOOR,
    ACTIVATIONS,
    PackedMatrix,
    packed_matrix_of,
)
from edgeq.formats.packing import unpack

NAME = "LowBitLinear"
INPUTS = ["X", "W_packed", "scale", "bias"]
ATTRIBUTES = ["N", "K", "bits", "zero_point", "activation"]
DECODED = "weights"
"""The value of the body that depends on the packed matrix alone: ``code - zero_point``, float32 ``[K, N]``."""


def sums_exactly_in_float32(matrix: PackedMatrix) -> bool:
    """Tells whether every partial sum of codes times int8 activations is exact in float32.

    The terms are multiples of 1, or of 1/2 where the zero point is a half, so sums are exact up to 2**24
    such steps.
    """
    largest = max(matrix.zero_point, 2**matrix.bits - 1 - matrix.zero_point)
    steps = 1 if matrix.zero_point == int(matrix.zero_point) else 2
    return matrix.columns * largest * ACTIVATION_LEVELS * steps <= 2**24


def quantize_activation(x: np.ndarray, activation_scale: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rounds activations to the int8 grid, per row or with one given scale.

    Args:
        x: float32, shape ``[..., K]``.
        activation_scale: One positive float32; per-row scales are taken from ``x`` when omitted.

    Returns:
        ``q`` (float32 holding integers -127..127, shape of ``x``) and ``a_scale`` (float32, ``[..., 1]``,
        or as given).
    """
    if activation_scale is None:
        largest = np.maximum(np.max(np.abs(x), axis=-1, keepdims=True), np.float32(ACTIVATION_MAX_FLOOR))
        a_scale = largest / np.float32(ACTIVATION_LEVELS)
        inverse = np.float32(ACTIVATION_LEVELS) / largest
    else:
        a_scale = activation_scale
        inverse = np.float32(1) / activation_scale
    q = np.clip(np.rint(x * inverse), np.float32(-ACTIVATION_LEVELS), np.float32(ACTIVATION_LEVELS))
    return q, a_scale


def integer_sums(q: np.ndarray, packed: np.ndarray, matrix: PackedMatrix) -> np.ndarray:
    """Returns ``sum_k (code - zero_point) * q`` exactly, as float64 of shape ``[..., N]``."""
    codes = unpack(packed, matrix.bits, rows=matrix.rows, columns=matrix.columns)
    return q.astype(np.float64) @ (codes.astype(np.float64) - matrix.zero_point).T


def reference(
    x: np.ndarray,
    packed: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    activation_scale: np.ndarray | None = None,
    *,
    activation: str = "dynamic",
    **attributes: Any,
) -> np.ndarray:
    """Numpy meaning of the operator.

    Args:
        x: float32, shape ``[..., K]``.
        packed: uint8 in layout ``n16k4``.
        scale: float32, shape ``[N]`` or ``[1]``.
        bias: float32, shape ``[N]``, or ``[1]`` holding 0.
        activation_scale: One positive float32, for ``static`` only.
        activation: ``none``, ``dynamic`` or ``static``.
        **attributes: N, K, bits, zero_point.

    Returns:
        float32, shape ``[..., N]``.

    Raises:
        FormatError: If the attributes do not describe a format edgeq has, or ``packed`` is not such a matrix.
    """
    matrix = packed_matrix_of(attributes)
    _check_activation(activation)
    if activation == "none":
        codes = unpack(packed, matrix.bits, rows=matrix.rows, columns=matrix.columns)
        weights = codes.astype(np.float32) - np.float32(matrix.zero_point)
        return (x @ weights.T) * scale + bias
    if (activation == "static") != (activation_scale is not None):
        raise FormatError(f"{NAME} takes an activation scale exactly when it is static, found {activation}")
    q, a_scale = quantize_activation(x, activation_scale)
    sums = integer_sums(q, packed, matrix).astype(np.float32)
    return sums * (scale * a_scale) + bias


def variant(node: NodeFormat) -> str:
    """Names what a body cannot read from attributes: how activations are quantized."""
    return _check_activation(node.activation)


def body(nodes: Sequence[NodeFormat], opset: int) -> onnx.FunctionProto:
    """Returns the operator's meaning in standard operators, for nodes of equal activation.

    Args:
        nodes: The nodes that it must fit; one that could exceed float32 makes all sum in float64.
        opset: Version of the standard operators, 18 or later.
    """
    activation = nodes[0].activation
    wide = activation != "none" and not all(sums_exactly_in_float32(node.matrix) for node in nodes)
    build = Body()
    weights = _decoded_weights(build)
    left = "X" if activation == "none" else _quantized_activation(build, activation)
    if wide:
        left = build.node("Cast", [left], "q_wide", to=onnx.TensorProto.DOUBLE)
        weights = build.node("Cast", [weights], "weights_wide", to=onnx.TensorProto.DOUBLE)
    total = build.node("MatMul", [left, weights], "sum_wide" if wide else "sum")
    if wide:
        total = build.node("Cast", [total], "sum", to=onnx.TensorProto.FLOAT)
    factor = "scale" if activation == "none" else build.node("Mul", ["scale", "a_scale"], "factor")
    scaled = build.node("Mul", [total, factor], "scaled")
    build.node("Add", [scaled, "bias"], "Y")
    return build.function(
        NAME,
        opset=opset,
        inputs=[*INPUTS, "activation_scale"] if activation == "static" else INPUTS,
        outputs=["Y"],
        attributes=ATTRIBUTES,
        doc=f"Y = X @ (scale * (code - zero_point)).T + bias on n16k4-packed codes, activation {activation}",
    )


def _decoded_weights(build: Body) -> str:
    """Adds ``code - zero_point`` as float32 of shape ``[K, N]``."""
    by_row = build.node("Transpose", ["W_packed"], "by_row", perm=[0, 2, 1, 3])  # [N/16, 16, K/4F, 4]
    axis = build.constant(np.array([3], np.int64), "field_axis")
    spread = build.node("Unsqueeze", [by_row, axis], "spread")
    padded = build.node("Flatten", [build.fields(spread, "fields")], "padded", axis=2)
    ends = build.node("Concat", [build.size("N", "rows"), build.size("K", "columns")], "ends", axis=0)
    starts = build.constant(np.zeros(2, np.int64), "starts")
    codes = build.node("Slice", [padded, starts, ends], "codes")
    level = build.node("Cast", [codes], "levels", to=onnx.TensorProto.FLOAT)
    zero = build.attribute("zero_point", "zero", kind="float")
    centred = build.node("Sub", [level, zero], "centred")
    return build.node("Transpose", [centred], DECODED, perm=[1, 0])


def _quantized_activation(build: Body, activation: str) -> str:
    """Adds ``q`` (float32 holding integers) and a value called ``a_scale``."""
    limit = build.constant(np.float32(ACTIVATION_LEVELS), "limit")
    if activation == "dynamic":
        magnitude = build.node("Abs", ["X"], "magnitude")
        axis = build.constant(np.array([-1], np.int64), "last_axis")
        peak = build.node("ReduceMax", [magnitude, axis], "peak", keepdims=1)
        floor = build.constant(np.float32(ACTIVATION_MAX_FLOOR), "floor")
        largest = build.node("Max", [peak, floor], "largest")
        build.node("Div", [largest, limit], "a_scale")
        inverse = build.node("Div", [limit, largest], "inverse")
    else:
        build.node("Identity", ["activation_scale"], "a_scale")
        one = build.constant(np.float32(1), "one")
        inverse = build.node("Div", [one, "activation_scale"], "inverse")
    rounded = build.node("Round", [build.node("Mul", ["X", inverse], "steps")], "rounded")
    lowest = build.constant(np.float32(-ACTIVATION_LEVELS), "lowest")
    return build.node("Clip", [rounded, lowest, limit], "q")


def _check_activation(activation: str) -> str:
    if activation not in ACTIVATIONS:
        raise FormatError(f"activation of {NAME} must be one of {ACTIVATIONS}, found {activation!r}")
    return activation


def _infer_shape(context: Any) -> None:
    attributes = inferred_attributes(context, ["N", "K", "bits", "zero_point"])
    matrix = packed_matrix_of(attributes)
    check_packed_shape(context, 1, matrix)
    shape = dimensions(context, 0)
    if shape and shape[-1].HasField("dim_value") and shape[-1].dim_value != matrix.columns:
        raise onnx.shape_inference.InferenceError(
            f"[ShapeInferenceError] {NAME} of K={matrix.columns} got an input of width {shape[-1].dim_value}"
        )
    set_float_output(context, None if shape is None else shape[:-1], matrix.rows)


_SCHEMA = operator_schema(
    NAME,
    __doc__ or "",
    inputs=[
        schema_input("X", "T", "activations [..., K]"),
        schema_input("W_packed", "tensor(uint8)", "codes in layout n16k4"),
        schema_input("scale", "T", "[N] or [1]"),
        schema_input("bias", "T", "[N], or [1] holding 0"),
        schema_input("activation_scale", "T", "one positive value", optional=True),
    ],
    output="[..., N]",
    attributes=[*MATRIX_ATTRIBUTES, schema_attribute("activation", "STRING", "none, dynamic or static")],
    infer=_infer_shape,
)

OPERATOR = Operator(schema=_SCHEMA, reference=reference, variant=variant, body=body)
