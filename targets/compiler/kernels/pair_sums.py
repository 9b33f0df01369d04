"""Sums of products of 8-bit codes with half the multiplications: Winograd's rule for inner products.

``x0*c0 + x1*c1 = (x0 + c1) * (x1 + c0) - x0*x1 - c0*c1``, in 16 bits for the factors and 32 for the sums. What is
subtracted depends on a token or on a row alone, so that it is made once for each. AVX2 has no dot product of bytes that
neither saturates nor needs the sign of one side moved to the other, and the two units that multiply would do that as
well; additions have four.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import prefetch, registers, tree_sum
from edgeq.targets.compiler.kernels.script import macro

_BYTE = 8
_ROW_PADDING = 16
"""Words between rows of activations: not all rows of a tile may fall into the same places of the first cache."""
_WORDS = 2
"""Words of a row that one turn of a loop takes in: counting takes three instructions of 55."""
_FEW_ROWS = 64
"""Fewer rows than this are widened by one thread."""


def row_words(operands: Operands) -> Any:
    """Words from one row of widened activations to the next."""
    return 2 * operands.words.shape[1] + _ROW_PADDING


def _halves(p: MatmulSettings, word: Any) -> tuple[Any, Any]:
    """Codes 0 and 2, and codes 1 and 3, of each word, without signs in 16 bits."""
    wide = p.isa.lanes * 2
    even = T.bitwise_and(T.reinterpret(word, dtype=f"int16x{wide}"), T.broadcast(T.int16(255), wide))
    odd = T.shift_right(T.reinterpret(word, dtype=f"uint16x{wide}"), T.broadcast(T.uint16(_BYTE), wide))
    return even, T.reinterpret(odd, dtype=f"int16x{wide}")


def _widen(p: MatmulSettings, operands: Operands, widened: Any, sums: Any, m: Any, first: Any) -> None:
    """Emits the widening of a register of activations, the two halves of each word side by side."""
    lanes, wide = p.isa.lanes, p.isa.lanes * 2
    halves = registers((2,), f"int16x{wide}")
    word = T.reinterpret(operands.words[m, T.ramp(first, 1, lanes)], dtype=f"int16x{wide}")
    byte = T.broadcast(T.int16(_BYTE), wide)
    T.buffer_store(halves, T.shift_right(T.shift_left(word, byte), byte), [0])
    T.buffer_store(halves, T.shift_right(word, byte), [1])
    T.buffer_store(sums, sums[0] + p.multiply_pairs(halves[0], halves[1]), [0])
    words = [T.reinterpret(halves[half], dtype=p.vector) for half in range(2)]
    for part in range(2):
        lane = part * lanes // 2
        places = [place + half * lanes for place in range(lane, lane + lanes // 2) for half in range(2)]
        start = m * row_words(operands) + first * 2 + part * lanes
        T.buffer_store(widened, tirx.Shuffle(words, places), [T.ramp(start, 1, lanes)])


@macro
def _widen_row(p, operands, widened, token_sums, m):
    sums = registers((1,), p.vector)
    sums[0] = T.broadcast(T.int32(0), p.isa.lanes)
    for c in range(operands.words.shape[1] // p.isa.lanes):
        _widen(p, operands, widened, sums, m, c * p.isa.lanes)
    token_sums[m] = tree_sum(sums[0]) + operands.code_sums[m] * T.int32(128)


@macro
def widen_rows(p, operands, widened, token_sums, tokens):
    """Leaves the activations of all tokens in ``widened``, and what each subtracts from its sums in ``token_sums``."""
    if tokens < _FEW_ROWS:
        for m in range(tokens):
            _widen_row(p, operands, widened, token_sums, m)
    else:
        for m in T.parallel(tokens):
            _widen_row(p, operands, widened, token_sums, m)


def _load_codes(p: MatmulSettings, operands: Operands, codes: Any, block: Any, k_block: Any, v: Any) -> None:
    lanes = p.isa.lanes
    for half, value in enumerate(_halves(p, operands.weight[block, k_block, T.ramp(v * lanes, 1, lanes)])):
        T.buffer_store(codes, value, [half])


def _take_in(
    p: MatmulSettings, operands: Operands, widened: Any, acc: Any, codes: Any, m: Any, k_block: Any, tokens: int
) -> None:
    """Emits the products of some tokens with the codes of one word a row of half a block."""
    lanes, wide = p.isa.lanes, f"int16x{p.isa.lanes * 2}"
    for r in range(tokens):
        start = (m + r) * row_words(operands) + k_block * 2
        x = [T.reinterpret(T.broadcast(widened[start + half], lanes), dtype=wide) for half in range(2)]
        T.buffer_store(acc, acc[r] + p.multiply_pairs(x[0] + codes[1], x[1] + codes[0]), [r])


@macro
def _take_in_words(p, operands, widened, acc, m, block, v, tokens, first, words):
    codes = registers((2,), f"int16x{p.isa.lanes * 2}")
    for word in T.unroll(words):
        _load_codes(p, operands, codes, block, first + word, v)
        _take_in(p, operands, widened, acc, codes, m, first + word, tokens)


@macro
def _take_in_own(p, operands, widened, acc, own, m, block, v, tokens, first, words):
    codes = registers((2,), f"int16x{p.isa.lanes * 2}")
    for word in T.unroll(words):
        _load_codes(p, operands, codes, block, first + word, v)
        own[0] = own[0] + p.multiply_pairs(codes[0], codes[1])
        _take_in(p, operands, widened, acc, codes, m, first + word, tokens)


@macro
def first_pair_products(p, operands, widened, token_sums, row_sums, acc, m, block, v, tokens):
    """As :func:`pair_products`, for the first tokens.

    Also leaves what each row subtracts in ``row_sums``, and asks for the weights of the next block, a share of them for
    each register of rows: while products are made, memory has time.
    """
    own = registers((1,), p.vector)
    own[0] = T.broadcast(T.int32(0), p.isa.lanes)
    for r in T.unroll(tokens):
        acc[r] = T.broadcast(T.int32(0) - token_sums[m + r], p.isa.lanes)
    for step in range(p.matrix.packed_shape[1] // p.isa.vectors):
        prefetch(operands.weight[block + 1, v * (p.matrix.packed_shape[1] // p.isa.vectors) + step, 0])
        _take_in_own(p, operands, widened, acc, own, m, block, v, tokens, step * p.isa.vectors, p.isa.vectors)
    # Word by word: a kernel for matrices of any size does not know how many are left.
    for word in range(p.matrix.packed_shape[1] // p.isa.vectors * p.isa.vectors, p.matrix.packed_shape[1]):
        _take_in_own(p, operands, widened, acc, own, m, block, v, tokens, word, 1)
    for r in T.unroll(tokens):
        acc[r] = acc[r] - own[0]
    row_sums[T.ramp(v * p.isa.lanes, 1, p.isa.lanes)] = own[0]


@macro
def pair_products(p, operands, widened, token_sums, row_sums, acc, m, block, v, tokens):
    """Leaves the sums of some tokens with one register of rows in ``acc``."""
    for r in T.unroll(tokens):
        acc[r] = p.first_pair_sum(token_sums[m + r], row_sums[T.ramp(v * p.isa.lanes, 1, p.isa.lanes)])
    for step in range(p.matrix.packed_shape[1] // _WORDS):
        _take_in_words(p, operands, widened, acc, m, block, v, tokens, step * _WORDS, _WORDS)
    for word in range(p.matrix.packed_shape[1] // _WORDS * _WORDS, p.matrix.packed_shape[1]):
        _take_in_words(p, operands, widened, acc, m, block, v, tokens, word, 1)
