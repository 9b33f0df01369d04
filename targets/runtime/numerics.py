"""Functions of real numbers that give the same bits in Python and in ``edgeq-run``, on every machine.

A library's ``exp``, ``log`` or ``pow`` may differ in the last bit between machines, and with it a sum, and at last a
token. So these use only operations that IEEE 754 rounds exactly, in float64 and in a fixed order
(runner/numerics.c has the same ones).
"""

from __future__ import annotations

import math

import numpy as np

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""Their sum is ln 2; the first has trailing zeros, so that a multiple of it is exact."""
_FACTORIALS = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
_ODD_RECIPROCALS = tuple(1.0 / n for n in range(25, 0, -2))
_SMALLEST_EXPONENT = -700.0
"""Below it the exponential counts as 0, which keeps every result a normal number."""
_SQRT_HALF = 0.7071067811865476
_BLOCK = 8192
"""Values at a time: as many as stay in the fastest caches."""


def exp_of_negative(x: np.ndarray) -> np.ndarray:
    """Returns e to the power of values that are not positive.

    The argument is split into a multiple of ln 2 and a rest of at most half of it, whose exponential is the Taylor
    polynomial of degree 13.

    Args:
        x: float64 of any shape; what lies below -700 gives 0.
    """
    result = np.empty_like(x)
    flat, out = x.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        rest = np.maximum(flat[start : start + _BLOCK], _SMALLEST_EXPONENT)
        powers = np.rint(rest * _LOG2_E)
        rest -= powers * _LN2_HIGH
        rest -= powers * _LN2_LOW
        value = np.full_like(rest, _FACTORIALS[0])
        for coefficient in _FACTORIALS[1:]:
            value *= rest
            value += coefficient
        # 2**powers, written into the exponent's bits: exact, and much faster than ldexp.
        value *= ((powers.astype(np.int64) + 1023) << 52).view(np.float64)
        out[start : start + _BLOCK] = value
    if flat.min(initial=0.0) < _SMALLEST_EXPONENT:
        out[flat < _SMALLEST_EXPONENT] = 0.0
    return result


def natural_log(x: float) -> float:
    """Returns the natural logarithm of a positive normal number.

    ``ln m = 2 artanh((m - 1) / (m + 1))`` for the significand between sqrt(1/2) and sqrt(2), as a series.
    """
    significand, exponent = math.frexp(x)
    if significand < _SQRT_HALF:
        significand, exponent = significand * 2.0, exponent - 1
    ratio = (significand - 1.0) / (significand + 1.0)
    square = ratio * ratio
    series = _ODD_RECIPROCALS[0]
    for coefficient in _ODD_RECIPROCALS[1:]:
        series = series * square + coefficient
    return exponent * _LN2_HIGH + (2.0 * ratio * series + exponent * _LN2_LOW)


def power(base: int, exponent: float) -> float:
    """Returns a positive integer to a power, between e**-700 and e**700."""
    if exponent == 1:
        return float(base)
    argument = exponent * natural_log(float(base))
    small = float(exp_of_negative(np.array([max(-abs(argument), _SMALLEST_EXPONENT)]))[0])
    return 1.0 / small if argument > 0 else small
