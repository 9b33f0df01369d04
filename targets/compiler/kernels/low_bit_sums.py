"""The sums of a low-bit matmul, in integers and so exact in any order.

Three ways: products added up in 32 bits, in 16 bits that are widened before they could overflow, and, for a few tokens,
codes taken in where they stand in their word. Statements that depend on the number of a field are emitted by
functions, since shifts and masks are then constants.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.lane_sums import lane_products
from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import prefetch, registers
from edgeq.targets.compiler.kernels.script import macro


def _narrow_step(
    p: MatmulSettings, operands: Operands, sums: Any, m: Any, block: Any, k_block: Any, tokens: int, blocks: int
) -> None:
    """Emits the products of one packed word a row, into 16-bit sums."""
    vectors = [(b, v) for b in range(blocks) for v in range(p.isa.vectors)]
    for field in range(p.matrix.fields):
        codes = registers((len(vectors),), p.vector)
        for index, (b, v) in enumerate(vectors):
            word = operands.weight[block + b, k_block, T.ramp(v * p.isa.lanes, 1, p.isa.lanes)]
            T.buffer_store(codes, p.codes(word, field), [index])
        for r in range(tokens):
            x = T.broadcast(operands.words[m + r, k_block * p.matrix.fields + field], p.isa.lanes)
            for index in range(len(vectors)):
                first = (r * len(vectors) + index) * p.narrow.parts
                parts = [sums[first + part] for part in range(p.narrow.parts)]
                for part, total in enumerate(p.narrow.add(parts, codes[index], x)):
                    T.buffer_store(sums, total, [first + part])


def _widen_all(p: MatmulSettings, acc: Any, sums: Any, count: int) -> None:
    """Emits the addition of 16-bit sums to the 32-bit ones."""
    for index in range(count):
        parts = [sums[index * p.narrow.parts + part] for part in range(p.narrow.parts)]
        T.buffer_store(acc, p.narrow.widen(acc[index], parts), [index])


@macro
def _narrow_chunk(p, operands, acc, m, block, tokens, blocks, ahead, first, words):
    sums = registers((tokens * blocks * p.isa.vectors * p.narrow.parts,), p.narrow.vector)
    for a in T.unroll(tokens * blocks * p.isa.vectors * p.narrow.parts):
        sums[a] = T.broadcast(T.int16(0), p.narrow.lanes)
    for k in range(words):
        if p.isa.prefetches_weights:
            prefetch(operands.weight[ahead, first + k, 0])
        _narrow_step(p, operands, sums, m, block, first + k, tokens, blocks)
    _widen_all(p, acc, sums, tokens * blocks * p.isa.vectors)


@macro
def _wide_products(p, operands, acc, m, block, tokens, blocks, ahead):
    for k_block in range(p.matrix.packed_shape[1]):
        if p.isa.prefetches_weights:
            prefetch(operands.weight[ahead, k_block, 0])
        for field in T.unroll(p.matrix.fields):
            codes = registers((blocks * p.isa.vectors,), p.vector)
            for v in T.unroll(blocks * p.isa.vectors):
                codes[v] = p.codes(
                    operands.weight[
                        block + v // p.isa.vectors, k_block, T.ramp((v % p.isa.vectors) * p.isa.lanes, 1, p.isa.lanes)
                    ],
                    field,
                )
            for r in T.unroll(tokens):
                for v in T.unroll(blocks * p.isa.vectors):
                    acc[r * blocks * p.isa.vectors + v] = p.isa.dot4(
                        acc[r * blocks * p.isa.vectors + v],
                        codes[v],
                        T.broadcast(operands.words[m + r, k_block * p.matrix.fields + field], p.isa.lanes),
                        p.product_bits,
                    )


@macro
def accumulate(p, operands, acc, m, block, tokens, blocks, ahead):
    """Adds the products of some tokens with some blocks to ``acc``, and asks for the weights of block ``ahead``."""
    if p.narrow_words > 0:
        for chunk in range(p.matrix.packed_shape[1] // p.narrow_words):
            _narrow_chunk(p, operands, acc, m, block, tokens, blocks, ahead, chunk * p.narrow_words, p.narrow_words)
        if p.matrix.packed_shape[1] % p.narrow_words > 0:
            _narrow_chunk(
                p, operands, acc, m, block, tokens, blocks, ahead,
                p.matrix.packed_shape[1] // p.narrow_words * p.narrow_words, p.matrix.packed_shape[1] % p.narrow_words,
            )  # fmt: skip
    elif p.isa.takes_lanes and tokens > 1:
        lane_products(p, operands, acc, m, block, tokens)
    else:
        _wide_products(p, operands, acc, m, block, tokens, blocks, ahead)


def _take_in(
    p: MatmulSettings, operands: Operands, acc: Any, m: Any, block: Any, k_block: Any, step: int, tokens: int
) -> None:
    """Emits the products of one packed word a row for some tokens; every slot of a vector has a sum of its own."""
    for field in range(p.matrix.fields):
        for v in range(p.isa.vectors):
            word = operands.weight[block, k_block, T.ramp(v * p.isa.lanes, 1, p.isa.lanes)]
            codes = p.slot_codes(word, field)
            for r in range(tokens):
                x = T.broadcast(operands.words[m + r, k_block * p.matrix.fields + field], p.isa.lanes)
                place = ((r * p.isa.vectors + v) * p.steps(tokens) + step) * p.slots + field % p.slots
                T.buffer_store(acc, p.isa.dot4(acc[place], codes, x, p.product_bits), [place])


def _slot_sums(p: MatmulSettings, acc: Any, sums: Any, vectors: int, steps: int) -> None:
    """Emits the sum over slots and steps, each slot's factor taken out: an exact division by a power of two."""
    parts = steps * p.slots
    for v in range(vectors):
        total: Any = None
        for place in range(parts):
            part = acc[v * parts + place]
            shift = place % p.slots * p.matrix.bits
            part = T.shift_right(part, T.broadcast(T.int32(shift), p.isa.lanes)) if shift else part
            total = part if total is None else total + part
        T.buffer_store(sums, total, [v])


def _take_in_narrow(p: MatmulSettings, operands: Operands, sums: Any, m: Any, block: Any, k_block: Any) -> None:
    """Emits the products of one packed word a row for a token, in 16 bits; every slot of a vector has its own sum."""
    for field in range(p.matrix.fields):
        x = T.broadcast(operands.words[m, k_block * p.matrix.fields + field], p.isa.lanes)
        for v in range(p.isa.vectors):
            word = operands.weight[block, k_block, T.ramp(v * p.isa.lanes, 1, p.isa.lanes)]
            place = v * p.slots + field % p.slots
            (total,) = p.narrow.add([sums[place]], p.slot_codes(word, field), x)
            T.buffer_store(sums, total, [place])


def _each(count: Any) -> Any:
    """Returns a loop without jumps; a kernel for matrices of any size does not know how many turns the last one has."""
    return T.unroll(count) if isinstance(count, int) else T.serial(count)


@macro
def _narrow_chunk_in_place(p, operands, acc, m, block, first, words):
    sums = registers((p.isa.vectors * p.slots,), p.narrow.vector)
    for a in T.unroll(p.isa.vectors * p.slots):
        sums[a] = T.broadcast(T.int16(0), p.narrow.lanes)
    for word in _each(words):
        _take_in_narrow(p, operands, sums, m, block, first + word)
    _widen_all(p, acc, sums, p.isa.vectors * p.slots)


@macro
def _narrow_sums_in_place(p, operands, sums, m, block):
    acc = registers((p.isa.vectors * p.slots,), p.vector)
    for a in T.unroll(p.isa.vectors * p.slots):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    for chunk in range(p.matrix.packed_shape[1] // p.narrow_words_in_place):
        _narrow_chunk_in_place(
            p, operands, acc, m, block, chunk * p.narrow_words_in_place, p.narrow_words_in_place
        )
    if p.matrix.packed_shape[1] % p.narrow_words_in_place > 0:
        _narrow_chunk_in_place(
            p, operands, acc, m, block,
            p.matrix.packed_shape[1] // p.narrow_words_in_place * p.narrow_words_in_place,
            p.matrix.packed_shape[1] % p.narrow_words_in_place,
        )  # fmt: skip
    _slot_sums(p, acc, sums, p.isa.vectors, 1)


@macro
def _wide_sums_in_place(p, operands, sums, m, block, tokens):
    acc = registers((tokens * p.isa.vectors * p.steps(tokens) * p.slots,), p.vector)
    for a in T.unroll(tokens * p.isa.vectors * p.steps(tokens) * p.slots):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    for k in range(p.matrix.packed_shape[1] // p.steps(tokens)):
        for step in T.unroll(p.steps(tokens)):
            _take_in(p, operands, acc, m, block, k * p.steps(tokens) + step, step, tokens)
    for k_block in range(
        p.matrix.packed_shape[1] // p.steps(tokens) * p.steps(tokens), p.matrix.packed_shape[1]
    ):
        _take_in(p, operands, acc, m, block, k_block, 0, tokens)
    _slot_sums(p, acc, sums, tokens * p.isa.vectors, p.steps(tokens))


@macro
def sums_in_place(p, operands, sums, m, block, tokens):
    """Leaves the sums of up to four tokens and one block in ``sums``.

    One block at a time, so that the weights are read in a single stream: with two, reading from memory took twice as
    long.
    """
    if tokens == 1 and p.narrow_words_in_place > 0:
        _narrow_sums_in_place(p, operands, sums, m, block)
    else:
        _wide_sums_in_place(p, operands, sums, m, block, tokens)
