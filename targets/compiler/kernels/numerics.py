"""Float functions on 16-lane vectors that give the same bits on every core.

Each takes and returns TIR expressions of type float32 (any number of lanes). Multiplications that feed an
addition are explicit ``fma`` calls: LLVM would otherwise be free to fuse them on one core and not on
another. Maximum errors are checked over the float range in ``tests/targets/test_numerics.py``.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa

Expression = Any

LANES = 16
"""Lanes of the vectors that element-wise float work is written on."""

# Minimax coefficients, lowest power first, fitted for relative error with an exchange method in float64.
# exp(r) = 1 + r + r^2 * p(r) on |r| <= ln(2)/2.
_EXP = (0.4999999403953552, 0.1666651964187622, 0.04166839271783829, 0.008368780836462975, 0.0013814467238262296)
# erf(x) = x * p(x^2) / q(x^2) on |x| <= 3.95, where erf rounds to 1.
_ERF_P = (
    1.1283791065216064, 0.19155104458332062, 0.052875496447086334,
    0.0038081815000623465, 0.00028468621894717216, 2.0258762560843024e-06,
)  # fmt: skip
_ERF_Q = (
    1.0, 0.5030903816223145, 0.11455988138914108,
    0.015055129304528236, 0.0011707270750775933, 3.783139254665002e-05,
)  # fmt: skip
# tanh(x) = x * p(x^2) / q(x^2) on |x| <= 9.02, where tanh rounds to 1.
_TANH_P = (
    1.0, 0.13679908215999603, 0.003868319559842348,
    2.8007294531562366e-05, 3.0584619281626146e-08, -1.2203165561386342e-11,
)  # fmt: skip
_TANH_Q = (1.0, 0.47013241052627563, 0.027245808392763138, 0.0003938616719096899, 1.2873549621872371e-06)

EXP_UNDERFLOW = -87.0
"""Arguments below this give exactly 0: masked attention scores vanish instead of leaving a denormal."""

_ISA: contextvars.ContextVar[Isa | None] = contextvars.ContextVar("_ISA", default=None)
_SIGN_BIT, _WHOLE_FLOATS = -(2**31), 2.0**23


@contextlib.contextmanager
def instructions_of(isa: Isa) -> Iterator[None]:
    """Kernels that are built within it do without what ``isa`` lacks: LLVM would call a function for every lane."""
    token = _ISA.set(isa)
    try:
        yield
    finally:
        _ISA.reset(token)


def registers(shape: tuple[int, ...], dtype: str) -> Any:
    """Allocates a small buffer that LLVM may keep in registers.

    Without the annotation every such buffer would be a call to the workspace allocator of TVM, 50 ns each.
    """
    return T.alloc_buffer(shape, dtype, scope="local", annotations={"disable_lower_builtin": True})


def prefetch(place: Expression, *, cache: int = 1) -> None:
    """Emits the wish to have the cache line of an element in a cache; a place outside the buffer does no harm."""
    to_read, keep, data = T.int32(0), T.int32(4 - cache), T.int32(1)
    intrinsic = T.llvm_lookup_intrinsic_id("llvm.prefetch")
    T.evaluate(T.call_llvm_intrin(intrinsic, T.address_of(place), to_read, keep, data, dtype="void"))


def bind(value: Expression, body: Callable[[Expression], Expression]) -> Expression:
    """Returns ``body(value)`` with ``value`` computed once, however often the body names it.

    The value goes through a one-element local buffer (a register, once compiled), which is allocated and written
    before the statement that is being parsed: TVM's analyzers substitute let-bound values into their uses, which
    takes time exponential in the depth of a polynomial.
    """
    register = registers((1,), str(value.ty))
    T.buffer_store(register, value, [0])
    return body(register[0])


def splat(value: Expression, like: Expression) -> Expression:
    """Returns ``value`` as a constant or broadcast of the type of ``like``."""
    lanes = _lanes(like)
    # Rounded here: TVM would widen a constant of more digits to another float64.
    scalar = T.float32(float(np.float32(value))) if isinstance(value, (int, float)) else value
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def fma(a: Expression, b: Expression, c: Expression) -> Expression:
    """Returns ``a * b + c`` with one rounding."""
    isa = _ISA.get()
    if isa is not None and not isa.fuses:
        return _fused_in_float64(a, b, c)
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.fma"), a, b, c, dtype=str(a.ty))


def _fused_in_float64(a: Expression, b: Expression, c: Expression) -> Expression:
    """The same bits without the instruction, subnormal results, infinities and zeros' signs included.

    The product of two floats is exact in float64, the sum is not. It is rounded to odd: the neighbour whose last bit is
    1 stands for everything between two even ones, so that rounding it to float32 gives what the exact sum would (Boldo
    and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008). The error of the sum is Knuth's.
    """
    wide, integer = _like(a, "float64"), _like(a, "int64")

    def constant(value: int | float) -> Expression:
        scalar = T.int64(value) if isinstance(value, int) else T.float64(value)
        return scalar if _lanes(a) == 1 else T.broadcast(scalar, _lanes(a))

    def rounded(total: Expression, error: Expression) -> Expression:
        too_large = T.Select(error * total < constant(0.0), constant(-1), constant(0))
        inexact = T.Select(magnitude(error) > constant(0.0), constant(1), constant(0))  # false for NaN
        odd = T.bitwise_or(T.reinterpret(total, dtype=integer) + too_large, inexact)
        return T.cast(T.reinterpret(odd, dtype=wide), str(a.ty))

    # Everything is bound: TVM takes a - (a - b) for b.
    def summed(product: Expression, addend: Expression, total: Expression) -> Expression:
        return bind(total - product, lambda part: bind(total - part, lambda rest: with_error(
            total, bind(product - rest, lambda lost: bind(addend - part, lambda left: lost + left))
        )))  # fmt: skip

    def with_error(total: Expression, error: Expression) -> Expression:
        return bind(error, lambda error: rounded(total, error))

    product, addend = T.cast(a, wide) * T.cast(b, wide), T.cast(c, wide)
    return bind(product, lambda product: bind(addend, lambda addend: bind(
        product + addend, lambda total: summed(product, addend, total)
    )))  # fmt: skip


def converted(x: Expression, kind: str) -> Expression:
    """Returns ``x`` as ``float32``, or rounded to the nearest ``float16``, ties to even."""
    isa = _ISA.get()
    if str(x.ty) == _like(x, kind):
        return x
    if isa is None or isa.converts_halves:
        return T.cast(x, _like(x, kind))
    return bind(x, _to_half if kind == "float16" else _from_half)


def _from_half(x: Expression) -> Expression:
    """Exact: the exponent is put right by a multiplication, which also takes subnormal halves in."""
    bits = T.cast(T.reinterpret(x, dtype=_like(x, "uint16")), _like(x, "int32"))

    def whole(bits: Expression) -> Expression:
        places = T.shift_left(T.bitwise_and(bits, _integers(0x7FFF, x)), _integers(13, x))
        sign = T.shift_left(T.bitwise_and(bits, _integers(0x8000, x)), _integers(16, x))
        scaled = T.reinterpret(places, dtype=_like(x, "float32")) * splat(2.0**112, x)
        finite = T.reinterpret(scaled, dtype=_like(x, "int32"))
        infinite = T.bitwise_or(places, _integers(0x7F800000, x))
        value = T.Select(places < _integers(0x7C00 << 13, x), finite, infinite)
        return T.reinterpret(T.bitwise_or(value, sign), dtype=_like(x, "float32"))

    return bind(bits, whole)


def _to_half(x: Expression) -> Expression:
    """Halves below 2**-14 are subnormal: adding 0.5 rounds them at the right place. From 65520 on all are infinite."""

    def size(bits: Expression) -> Expression:
        odd = T.bitwise_and(T.shift_right(bits, _integers(13, x)), _integers(1, x))
        normal = T.shift_right(bits + odd + _integers(0xFFF - (112 << 23), x), _integers(13, x))
        added = T.reinterpret(bits, dtype=_like(x, "float32")) + splat(0.5, x)
        subnormal = T.reinterpret(added, dtype=_like(x, "int32")) - _integers(0x3F000000, x)
        special = T.Select(bits > _integers(0x7F800000, x), _integers(0x7E00, x), _integers(0x7C00, x))
        finite = T.Select(bits < _integers(0x38800000, x), subnormal, normal)
        return T.Select(bits >= _integers(0x47800000, x), special, finite)

    def signed(bits: Expression) -> Expression:
        sign = T.bitwise_and(T.shift_right(bits, _integers(16, x)), _integers(0x8000, x))
        magnitude_bits = T.bitwise_and(bits, _integers(0x7FFFFFFF, x))
        half = T.bitwise_or(bind(magnitude_bits, size), sign)
        return T.reinterpret(T.cast(half, _like(x, "uint16")), dtype=_like(x, "float16"))

    return bind(T.reinterpret(x, dtype=_like(x, "int32")), signed)


def round_half_even(x: Expression) -> Expression:
    """Rounds to the nearest integer, ties to even."""
    isa = _ISA.get()
    if isa is not None and not isa.rounds:
        return bind(x, _round_by_addition)
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.nearbyint"), x, dtype=str(x.ty))


def _round_by_addition(x: Expression) -> Expression:
    """The same bits, zeros' signs included: 2**23 leaves no place for a fraction, and floats above it have none."""
    integer = _like(x, "int32")

    def signed(whole: Expression) -> Expression:
        sign = T.bitwise_and(T.reinterpret(x, dtype=integer), _integers(_SIGN_BIT, x))
        return T.reinterpret(T.bitwise_or(T.reinterpret(whole, dtype=integer), sign), dtype=str(x.ty))

    # The sum is bound, because TVM takes (a + b) - b for a.
    limit = splat(_WHOLE_FLOATS, x)
    whole = bind(magnitude(x) + limit, lambda total: total - limit)
    return T.Select(magnitude(x) < limit, signed(whole), x)


def square_root(x: Expression) -> Expression:
    """Returns the correctly rounded square root."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.sqrt"), x, dtype=str(x.ty))


def magnitude(x: Expression) -> Expression:
    """Returns ``|x|``."""
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id("llvm.fabs"), x, dtype=str(x.ty))


def larger(a: Expression, b: Expression) -> Expression:
    """Returns the larger of two values by comparison, which all cores treat alike."""
    return T.Select(a > b, a, b)


def smaller(a: Expression, b: Expression) -> Expression:
    """Returns the smaller of two values by comparison."""
    return T.Select(a < b, a, b)


def tree_sum(vector: Expression) -> Expression:
    """Adds the lanes of a vector in one fixed order: lane i to lane i + 8, then i + 4, i + 2, i + 1."""
    return _tree(vector, lambda a, b: a + b)


def tree_max(vector: Expression) -> Expression:
    """Returns the largest lane of a vector."""
    return _tree(vector, lambda a, b: bind(a, lambda a: bind(b, lambda b: larger(a, b))))


def exp(x: Expression) -> Expression:
    """Returns e**x for x <= 88 (0 below ``EXP_UNDERFLOW``); at most 2 units in the last place off."""
    return bind(x, _exp)


def _exp(x: Expression) -> Expression:
    integer = _like(x, "int32")

    def scaled(n: Expression, r: Expression) -> Expression:
        value = fma(r * r, _polynomial(r, _EXP), r + splat(1.0, x))
        bits = T.cast(n, integer) + _integers(127, x)
        power = T.reinterpret(T.shift_left(bits, _integers(23, x)), dtype=str(x.ty))
        return T.Select(x < splat(EXP_UNDERFLOW, x), splat(0.0, x), value * power)

    def reduced(clamped: Expression, n: Expression) -> Expression:
        r = fma(n, splat(2.12194440e-4, x), fma(n, splat(-0.693359375, x), clamped))
        return bind(r, lambda r: scaled(n, r))

    def ranged(clamped: Expression) -> Expression:
        n = round_half_even(clamped * splat(1.4426950408889634, x))
        return bind(n, lambda n: reduced(clamped, n))

    return bind(_clamped(x, EXP_UNDERFLOW, 88.0), ranged)


def erf(x: Expression) -> Expression:
    """Returns the error function, at most 1 in magnitude."""
    return bind(x, lambda x: _odd_rational(x, _ERF_P, _ERF_Q, 3.95))


def tanh(x: Expression) -> Expression:
    """Returns the hyperbolic tangent, at most 1 in magnitude."""
    return bind(x, lambda x: _odd_rational(x, _TANH_P, _TANH_Q, 9.02))


def relu(x: Expression) -> Expression:
    """Returns ``x`` where it is not below zero, else zero."""
    return bind(x, lambda x: T.Select(x < splat(0.0, x), splat(0.0, x), x))


def gelu(x: Expression) -> Expression:
    """Returns ``x/2 * (1 + erf(x / sqrt(2)))``: ONNX Gelu with ``approximate="none"``."""
    return bind(x, lambda x: _halved(x, erf(x * splat(0.7071067811865476, x))))


def gelu_tanh(x: Expression) -> Expression:
    """Returns ``x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))``: ONNX Gelu with ``approximate="tanh"``."""

    def cubic(x: Expression) -> Expression:
        return fma(x * x * x, splat(0.044715, x), x)

    return bind(x, lambda x: _halved(x, tanh(cubic(x) * splat(0.7978845608028654, x))))


def sigmoid(x: Expression) -> Expression:
    """Returns ``1 / (1 + e**-x)``: from e**-|x|, so that no intermediate result overflows or is a denormal."""

    def ratio(x: Expression, power: Expression) -> Expression:
        return T.Select(x < splat(0.0, x), power, splat(1.0, x)) / (power + splat(1.0, x))

    return bind(x, lambda x: bind(exp(splat(0.0, x) - magnitude(x)), lambda power: ratio(x, power)))


def silu(x: Expression) -> Expression:
    """Returns ``x * sigmoid(x)``."""
    return bind(x, lambda x: x * sigmoid(x))


def _halved(x: Expression, sigmoid_of_twice: Expression) -> Expression:
    """Returns ``x/2 * (1 + sigmoid_of_twice)``."""
    return bind(x * splat(0.5, x), lambda half: fma(half, sigmoid_of_twice, half))


def _tree(vector: Expression, combine: Callable[[Expression, Expression], Expression]) -> Expression:
    """Combines halves of the vector until one lane is left: in registers, where lanes in memory would stall."""
    lanes, kind = _lanes(vector), str(vector.ty).split("x")[0]
    if lanes == 2:
        pair = registers((2,), kind)
        T.buffer_store(pair, vector, [T.ramp(0, 1, 2)])
        return combine(pair[0], pair[1])
    half = f"{kind}x{lanes // 2}"
    return bind(vector, lambda v: _tree(combine(T.vectorlow(half, v), T.vectorhigh(half, v)), combine))


def _odd_rational(x: Expression, p: Sequence[float], q: Sequence[float], limit: float) -> Expression:
    def ratio(x: Expression) -> Expression:
        return bind(x * x, lambda square: x * _polynomial(square, p) / _polynomial(square, q))

    value = bind(_clamped(x, -limit, limit), ratio)
    return bind(value, lambda value: _clamped(value, -1.0, 1.0))


def _clamped(x: Expression, low: float, high: float) -> Expression:
    return bind(larger(x, splat(low, x)), lambda y: smaller(y, splat(high, y)))


def _polynomial(x: Expression, coefficients: Sequence[float]) -> Expression:
    value = splat(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        value = fma(value, x, splat(coefficient, x))
    return value


def _like(x: Expression, kind: str) -> str:
    """Type of as many numbers of ``kind`` as ``x`` has."""
    return kind if _lanes(x) == 1 else f"{kind}x{_lanes(x)}"


def _integers(value: int, like: Expression) -> Expression:
    lanes = _lanes(like)
    return T.int32(value) if lanes == 1 else T.broadcast(T.int32(value), lanes)


def _lanes(x: Expression) -> int:
    return int(x.ty.dtype.lanes)
