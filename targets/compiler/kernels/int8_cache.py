"""Keys and values of new tokens to int8 with a scale each, and the scales of values at their weights.

The codes are those of ``edgeq/rounding.py``: with ``m = max(max|x|, 1e-30)`` over the columns of a head,
``scale = m / 127`` and ``code = round_half_even(x * (127 / m))``.
"""

from __future__ import annotations

from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR
from edgeq.targets.compiler.kernels.numerics import LANES, larger, magnitude, registers, splat, tree_max
from edgeq.targets.compiler.kernels.quantize_rows import row_codes
from edgeq.targets.compiler.kernels.script import macro

_SMALLEST_WEIGHT = 1e-37
"""Weights below it count as 0, because some processors have no floats much smaller; the largest one is a scale, which
is above it."""


@macro
def _store_scale(p, x, first, cache, batch, head, token, slot, inverse):
    """Stores the scale of a token, and leaves what its columns are multiplied by in ``inverse[0]``."""
    peaks = registers((1,), "float32x16")
    peak = registers((1,), "float32")
    peaks[0] = T.broadcast(T.float32(ACTIVATION_MAX_FLOOR), LANES)
    for c in range(p.head_size // LANES):
        peaks[0] = larger(magnitude(x[batch, token, T.ramp(first + c * LANES, 1, LANES)]), peaks[0])
    peak[0] = tree_max(peaks[0])
    for c in range(p.head_size // LANES * LANES, p.head_size):
        peak[0] = larger(magnitude(x[batch, token, first + c]), peak[0])
    cache[batch, head, p.block(slot), p.scale_place(slot)] = T.reinterpret(
        peak[0] / T.float32(ACTIVATION_LEVELS), dtype="int8x4"
    )
    inverse[0] = T.float32(ACTIVATION_LEVELS) / peak[0]


@macro
def append_codes(p, k, v, k_first, v_first, key_cache, value_cache, batch, head, token, slot):
    """Stores key and value of one token of one head, whose columns begin at ``k_first`` and ``v_first``."""
    inverse = registers((1,), "float32")
    codes = registers((LANES,), "int8")
    _store_scale(p, k, k_first, key_cache, batch, head, token, slot, inverse)
    for c in range(p.head_size // LANES):
        codes[T.ramp(0, 1, LANES)] = T.cast(
            row_codes(k[batch, token, T.ramp(k_first + c * LANES, 1, LANES)], inverse[0]), "int8x16"
        )
        for lane in T.unroll(LANES):
            key_cache[batch, head, p.block(slot), (c * LANES + lane) * LANES + p.place(slot)] = codes[lane]
    for c in range(p.head_size // LANES * LANES, p.head_size):
        key_cache[batch, head, p.block(slot), c * LANES + p.place(slot)] = T.cast(
            row_codes(k[batch, token, k_first + c], inverse[0]), "int8"
        )
    _store_scale(p, v, v_first, value_cache, batch, head, token, slot, inverse)
    for c in range(p.head_size // LANES):
        value_cache[batch, head, p.block(slot), T.ramp(p.place(slot) * p.head_size + c * LANES, 1, LANES)] = T.cast(
            row_codes(v[batch, token, T.ramp(v_first + c * LANES, 1, LANES)], inverse[0]), "int8x16"
        )
    for c in range(p.head_size // LANES * LANES, p.head_size):
        value_cache[batch, head, p.block(slot), p.place(slot) * p.head_size + c] = T.cast(
            row_codes(v[batch, token, v_first + c], inverse[0]), "int8"
        )


@macro
def weigh_by_scales(p, o, scores, row, key_vectors):
    """Multiplies the weights of values by the scales of the values."""
    weight = registers((1,), "float32x16")
    for t in range(key_vectors):
        weight[0] = scores[row, T.ramp(t * LANES, 1, LANES)] * p.scales(o.value_cache, o, t)
        scores[row, T.ramp(t * LANES, 1, LANES)] = T.Select(
            weight[0] < splat(_SMALLEST_WEIGHT, weight[0]), splat(0.0, weight[0]), weight[0]
        )
