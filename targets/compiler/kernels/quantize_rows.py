"""Float activations to int8, one scale a token: the first half of a low-bit linear layer."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import (
    LANES,
    larger,
    magnitude,
    registers,
    round_half_even,
    smaller,
    splat,
    tree_max,
    tree_sum,
)
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS, leading_dimensions

COLUMN_PADDING = 64
"""Quantized rows are zero-padded to a multiple of this: the widest column block, that of 1-bit codes."""

RUNNING = 4
"""Running maxima of a row."""


def padded_columns(columns: int) -> int:
    """Returns the length of a quantized row, in bytes."""
    return -(-columns // COLUMN_PADDING) * COLUMN_PADDING


def row_codes(x: Any, inverse: Any) -> Any:
    """Codes of 16 values, or of one, as 32-bit integers."""
    limit = splat(float(ACTIVATION_LEVELS), x)
    rounded = round_half_even(x * splat(inverse, x))
    kind = "int32x16" if int(x.ty.dtype.lanes) == LANES else "int32"
    return T.cast(smaller(larger(rounded, -limit), limit), kind)


@macro
def find_largest(row_in, peak, i, columns):
    """Leaves the largest magnitude of row ``i`` in ``peak[0]``.

    The order of comparisons does not matter: four running maxima hide the latency of one.
    """
    peaks = registers((RUNNING,), "float32x16")
    for j in T.unroll(RUNNING):
        peaks[j] = T.broadcast(T.float32(ACTIVATION_MAX_FLOOR), LANES)
    for c in range(columns // LANES // RUNNING):
        for j in T.unroll(RUNNING):
            peaks[j] = larger(magnitude(row_in[i, T.ramp((c * RUNNING + j) * LANES, 1, LANES)]), peaks[j])
    for c in range(columns // LANES // RUNNING * RUNNING, columns // LANES):
        peaks[0] = larger(magnitude(row_in[i, T.ramp(c * LANES, 1, LANES)]), peaks[0])
    for j in T.unroll(RUNNING - 1):
        peaks[0] = larger(peaks[j + 1], peaks[0])
    peak[0] = tree_max(peaks[0])
    for c in range(columns % LANES):
        peak[0] = larger(magnitude(row_in[i, columns // LANES * LANES + c]), peak[0])


@macro
def _quantize_row(row_in, words_out, sums_out, i, inverse, columns):
    sums = registers((1,), "int32x16")
    codes = registers((1,), "int32x16")
    total = registers((1,), "int32")
    code = registers((1,), "int32")
    sums[0] = T.broadcast(T.int32(0), LANES)
    for c in range(columns // LANES):
        codes[0] = row_codes(row_in[i, T.ramp(c * LANES, 1, LANES)], inverse)
        sums[0] = sums[0] + codes[0]
        words_out[i, T.ramp(c * 4, 1, 4)] = T.reinterpret(T.cast(codes[0], "int8x16"), dtype="int32x4")
    total[0] = tree_sum(sums[0])
    for w in range(padded_columns(columns) // 4 - columns // LANES * 4):
        words_out[i, columns // LANES * 4 + w] = 0
    for c in range(columns // LANES * LANES, columns):
        code[0] = row_codes(row_in[i, c], inverse)
        total[0] = total[0] + code[0]
        words_out[i, c // 4] = words_out[i, c // 4] | T.shift_left(code[0] & 255, T.cast(8 * (c % 4), "int32"))
    sums_out[i] = total[0]


@macro
def dynamic_row(row_in, words_out, scales_out, sums_out, i, columns):
    """Writes codes, scale and sum of row ``i``, whose scale is found."""
    peak = registers((1,), "float32")
    inverse = registers((1,), "float32")
    find_largest(row_in, peak, i, columns)
    scales_out[i] = peak[0] / T.float32(ACTIVATION_LEVELS)
    inverse[0] = T.float32(ACTIVATION_LEVELS) / peak[0]
    _quantize_row(row_in, words_out, sums_out, i, inverse[0], columns)


@macro
def _static_row(row_in, given_scale, words_out, scales_out, sums_out, i, columns):
    inverse = registers((1,), "float32")
    scales_out[i] = given_scale[0]
    inverse[0] = T.float32(1.0) / given_scale[0]
    _quantize_row(row_in, words_out, sums_out, i, inverse[0], columns)


def quantize_rows(columns: int, *, rank: int, static: bool) -> tirx.PrimFunc:
    """Builds the quantizer of rows of ``columns`` float32 values.

    For each row, with ``m = max(max|x|, 1e-30)``: ``scale = m / 127`` and ``q = round_half_even(x * (127 / m))``
    in -127..127. With a static scale, ``q = clip(round_half_even(x * (1 / scale)), -127, 127)``.

    Args:
        columns: K, the length of a row.
        rank: Number of leading dimensions.
        static: Whether the scale is an input of shape ``[1]`` instead of being found per row.

    Returns:
        A function of ``x`` float32 ``[..., K]``, (``static_scale`` float32 ``[1]``,) and the outputs: codes as int32
        ``[..., padded(K)/4]`` (four int8 a word), scale float32 ``[...]``, sum of the codes int32 ``[...]``.
    """
    lead, rows = leading_dimensions(rank)
    words = padded_columns(columns) // 4

    @script.prim_func(s_tir=True)
    def dynamic_scale(x: T.handle, q: T.handle, scale: T.handle, code_sum: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        q_buffer = T.match_buffer(q, (*lead, words), "int32")
        scale_buffer = T.match_buffer(scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        with T.sblock("root"):
            row_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            words_out = T.decl_buffer((rows, words), "int32", data=q_buffer.data)
            scales_out = T.decl_buffer((rows,), "float32", data=scale_buffer.data)
            sums_out = T.decl_buffer((rows,), "int32", data=sum_buffer.data)
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    dynamic_row(row_in, words_out, scales_out, sums_out, i, columns)
            else:
                for i in T.parallel(rows):
                    dynamic_row(row_in, words_out, scales_out, sums_out, i, columns)

    @script.prim_func(s_tir=True)
    def static_scale(x: T.handle, given: T.handle, q: T.handle, scale: T.handle, code_sum: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        given_scale = T.match_buffer(given, (1,), "float32")
        q_buffer = T.match_buffer(q, (*lead, words), "int32")
        scale_buffer = T.match_buffer(scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        with T.sblock("root"):
            row_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            words_out = T.decl_buffer((rows, words), "int32", data=q_buffer.data)
            scales_out = T.decl_buffer((rows,), "float32", data=scale_buffer.data)
            sums_out = T.decl_buffer((rows,), "int32", data=sum_buffer.data)
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    _static_row(row_in, given_scale, words_out, scales_out, sums_out, i, columns)
            else:
                for i in T.parallel(rows):
                    _static_row(row_in, given_scale, words_out, scales_out, sums_out, i, columns)

    return static_scale if static else dynamic_scale
