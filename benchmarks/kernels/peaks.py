"""What the machine can do at most: loops that only multiply, and one that only reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels.numerics import LANES, fma, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.tile_sums import (
    SUM_WORDS,
    TILE_BLOCKS,
    TILE_COLUMNS,
    TILE_TOKENS,
    begin_tiles,
    end_tiles,
    multiply,
)

STEPS = 20_000
"""Steps of a loop: some tenths of a millisecond."""
ROWS = 6
VECTORS = 2
WORDS = 64
"""Activations that the integer loop walks over, in the first cache."""
READ_BYTES = 256 * 2**20
"""More than any cache holds."""
READ_BLOCK = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Peak:
    """A loop that reaches one limit of the machine.

    Attributes:
        name: What is measured.
        function: The loop; the last array is its output.
        arrays: Its arguments.
        work: Multiply-accumulates or bytes of one call.
        unit: ``GMAC/s`` or ``GB/s``.
    """

    name: str
    function: tirx.PrimFunc
    arrays: list[np.ndarray]
    work: float
    unit: str


@macro
def _integer_steps(isa, codes, words, out, thread, vector, steps):
    acc = registers((ROWS * VECTORS,), vector)
    for a in T.unroll(ROWS * VECTORS):
        acc[a] = T.broadcast(T.int32(0), isa.lanes)
    for step in range(steps):
        for r in T.unroll(ROWS):
            for v in T.unroll(VECTORS):
                acc[r * VECTORS + v] = isa.dot4(
                    acc[r * VECTORS + v],
                    codes[T.ramp(v * isa.lanes, 1, isa.lanes)],
                    T.broadcast(words[step % WORDS + r], isa.lanes),
                    2,
                )
    for a in T.unroll(ROWS * VECTORS):
        out[thread, T.ramp(a * isa.lanes, 1, isa.lanes)] = acc[a]


def _multiply_all_tiles() -> None:
    for half in range(2):
        for b in range(TILE_BLOCKS):
            multiply(half, b)


@macro
def _tile_steps(out, thread, steps):
    begin_tiles(TILE_TOKENS, TILE_TOKENS)
    for _ in range(steps):
        _multiply_all_tiles()
    end_tiles(out, thread * SUM_WORDS, TILE_BLOCKS)


def _tile_peak(threads: int, steps: int) -> Peak:
    """Builds a loop of products of tiles that are in registers."""

    @T.prim_func(s_tir=True)
    def loop(y: T.handle):
        T.func_attr({"tirx.noalias": True})
        out = T.match_buffer(y, (threads * SUM_WORDS,), "int32")
        with T.sblock("root"):
            for thread in T.parallel(threads):
                _tile_steps(out, thread, steps)

    work = threads * steps * SUM_WORDS * TILE_COLUMNS
    return Peak("int8 products in registers", loop, [np.zeros(threads * SUM_WORDS, np.int32)], work, "GMAC/s")


def integer_peak(isa: Isa, threads: int, *, steps: int = STEPS) -> Peak:
    """Builds a tile of the low-bit matmul that unpacks nothing: only dot products of operands at hand."""
    if isa.multiplies_tiles:
        return _tile_peak(threads, steps)
    width = ROWS * VECTORS * isa.lanes
    vector = f"int32x{isa.lanes}"

    @T.prim_func(s_tir=True)
    def loop(codes_: T.handle, words_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        codes = T.match_buffer(codes_, (VECTORS * isa.lanes,), "int32")
        words = T.match_buffer(words_, (WORDS + ROWS,), "int32")
        out = T.match_buffer(y, (threads, width), "int32")
        with T.sblock("root"):
            for thread in T.parallel(threads):
                _integer_steps(isa, codes, words, out, thread, vector, steps)

    arrays = [np.full(n, 0x01020103, np.int32) for n in (VECTORS * isa.lanes, WORDS + ROWS)]
    work = threads * steps * ROWS * VECTORS * isa.lanes * 4
    return Peak("int8 products in registers", loop, [*arrays, np.zeros((threads, width), np.int32)], work, "GMAC/s")


@macro
def _float_steps(x, out, thread):
    acc = registers((ROWS * VECTORS,), "float32x16")
    for a in T.unroll(ROWS * VECTORS):
        acc[a] = T.broadcast(T.float32(0), LANES)
    for _ in range(STEPS):
        for a in T.unroll(ROWS * VECTORS):
            acc[a] = fma(x[T.ramp(0, 1, LANES)], x[T.ramp(LANES, 1, LANES)], acc[a])
    for a in T.unroll(ROWS * VECTORS):
        out[thread, T.ramp(a * LANES, 1, LANES)] = acc[a]


def float_peak(threads: int) -> Peak:
    """Builds a loop of fused multiply-adds."""
    width = ROWS * VECTORS * LANES

    @T.prim_func(s_tir=True)
    def loop(x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (2 * LANES,), "float32")
        out = T.match_buffer(y, (threads, width), "float32")
        with T.sblock("root"):
            for thread in T.parallel(threads):
                _float_steps(x, out, thread)

    work = threads * STEPS * width
    arrays = [np.ones(2 * LANES, np.float32), np.zeros((threads, width), np.float32)]
    return Peak("float32 multiply-accumulates in registers", loop, arrays, work, "GMAC/s")


def read_peak(threads: int) -> Peak:
    """Builds a loop that adds up an array larger than the caches."""
    words = READ_BYTES // 4 // threads // READ_BLOCK * READ_BLOCK

    @T.prim_func(s_tir=True)
    def loop(x_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (threads, words), "int32")
        out = T.match_buffer(y, (threads, LANES), "int32")
        with T.sblock("root"):
            for thread in T.parallel(threads):
                acc = registers((1,), "int32x16")
                acc[0] = T.broadcast(T.int32(0), LANES)
                for i in range(words // LANES):
                    acc[0] = acc[0] + x[thread, T.ramp(i * LANES, 1, LANES)]
                out[thread, T.ramp(0, 1, LANES)] = acc[0]

    arrays: list[Any] = [np.ones((threads, words), np.int32), np.zeros((threads, LANES), np.int32)]
    return Peak("reading memory", loop, arrays, threads * words * 4, "GB/s")
