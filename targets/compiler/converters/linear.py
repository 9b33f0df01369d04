"""Linear layers: low-bit with quantized or float activations, and those that stayed float."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from edgeq.errors import FormatError
from edgeq.formats.low_bit import PackedMatrix, packed_matrix_of
from edgeq.targets.compiler.converters.kernel_calls import Converter, KernelCalls, shape_of, tensor
from edgeq.targets.compiler.kernels.float_matmul import float_matmul
from edgeq.targets.compiler.kernels.low_bit_matmul import check_accumulator, low_bit_matmul
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.compiler.kernels.residual_matmul import residual_matmul
from edgeq.targets.compiler.kernels.weight_only_matmul import weight_only_matmul
from edgeq.targets.compiler.passes.float_linear import FLOAT_LINEAR

SEVEN_BITS = "seven_bits"
"""Attribute of a ``LowBitLinear`` of 8 bits whose codes are all below 128."""


def low_bit_linear(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``LowBitLinear``: quantizer and integer matmul, or the weight-only matmul; a sixth input is added last."""
    x, weight, scale, bias, static_scale, added = [*inputs, None, None][:6]
    matrix = packed_matrix(attrs, weight, scale)
    lead = shape_of(x)[:-1]
    has_bias = int(shape_of(bias)[0]) == matrix.rows and matrix.rows > 1
    options = {"rank": len(lead), "has_bias": has_bias, "epilogue": attrs.get("epilogue", "none")}
    key: tuple[Any, ...] = (matrix, *options.values())
    out = tensor([*lead, matrix.rows])
    if attrs["activation"] == "none":
        return calls.isa_call(
            ("weight_only_matmul", *key),
            lambda isa: weight_only_matmul(isa, matrix, **options),
            [x, weight, scale, bias],
            out,
        )
    check_accumulator(matrix, attrs["name"])
    if attrs.get(SEVEN_BITS):
        key, options = (*key, SEVEN_BITS), {**options, "seven_bits": True}
    quantized = _quantize(calls, x, static_scale if attrs["activation"] == "static" else None)
    operands = [*quantized, weight, scale, bias]
    build = low_bit_matmul if added is None else residual_matmul
    return calls.isa_call(
        (build.__name__, *key),
        lambda isa: build(isa, matrix, **options),
        operands if added is None else [*operands, added],
        out,
    )


def _quantize(calls: KernelCalls, x: Any, static_scale: Any) -> list[Any]:
    """Quantizes once, however many layers read ``x``."""
    known = (x, static_scale)
    if known not in calls.quantized:
        *lead, last = shape_of(x)
        columns, static = int(last), static_scale is not None
        call = calls.call(
            ("quantize_rows", columns, len(lead), static),
            lambda: quantize_rows(columns, rank=len(lead), static=static),
            [x, static_scale] if static else [x],
            row_codes(lead, columns),
        )
        calls.quantized[known] = calls.parts(call, 3)
    return calls.quantized[known]


def row_codes(lead: list[Any], columns: int) -> list[Any]:
    """Types of quantized rows: codes, scale and sum of each."""
    return [tensor([*lead, padded_columns(columns) // 4], "int32"), tensor(lead), tensor(lead, "int32")]


def float_linear(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``FloatLinear``: a dense float32 matrix in panels, and an optional bias."""
    x, weight = inputs[:2]
    k, n = int(shape_of(weight)[1]), int(attrs["outputs"])
    lead = shape_of(x)[:-1]
    has_bias = len(inputs) > 2
    bias = inputs[2] if has_bias else relax.const(np.zeros(1, np.float32))
    return calls.isa_call(
        ("float_matmul", k, n, len(lead), has_bias),
        lambda isa: float_matmul(isa, k, n, rank=len(lead), has_bias=has_bias),
        [x, weight, bias],
        tensor([*lead, n]),
    )


def packed_matrix(attrs: dict[str, Any], weight: Any, scale: Any) -> PackedMatrix:
    """Reads the description of a packed weight from a node and checks it against the tensor.

    Raises:
        FormatError: If the attributes are impossible or contradict the shape of the tensor.
    """
    matrix = packed_matrix_of(attrs, scales=int(shape_of(scale)[0]))
    found, expected = [int(d) for d in shape_of(weight)], list(matrix.packed_shape[:3])
    if found != expected:
        raise FormatError(
            f"{attrs['name']}: expected a packed weight of {expected} blocks for {matrix.rows} x {matrix.columns} "
            f"codes of {matrix.bits} bits, found {found}"
        )
    return matrix


CONVERTERS: dict[str, Converter] = {
    FLOAT_LINEAR: float_linear,
    "LowBitLinear": low_bit_linear,
}
