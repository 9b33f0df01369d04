"""Rotary positions: pairs of columns of each head are turned by an angle that grows with the position."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, fma, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS


@dataclasses.dataclass(frozen=True)
class Turns:
    """What is fixed when the kernel is built.

    Attributes:
        heads: Number of heads.
        head_size: Columns of a head.
        pairs: Pairs of columns that are turned: columns ``i`` and ``i + pairs`` of the first ``2 * pairs``.
        positions: Rows of the tables.
    """

    heads: int
    head_size: int
    pairs: int
    positions: int

    @property
    def width(self) -> int:
        """Columns of all heads."""
        return self.heads * self.head_size


def _first(a: Any, b: Any, cosine: Any, sine: Any) -> Any:
    return fma(a, cosine, -(b * sine))


def _second(a: Any, b: Any, cosine: Any, sine: Any) -> Any:
    return fma(b, cosine, a * sine)


@macro
def _turn_head(p, x, out, cosines, sines, b, s, position, first):
    for v in range(p.pairs // LANES):
        pair = registers((2,), "float32x16")
        pair[0] = x[b, s, T.ramp(first + v * LANES, 1, LANES)]
        pair[1] = x[b, s, T.ramp(first + p.pairs + v * LANES, 1, LANES)]
        turn = registers((2,), "float32x16")
        turn[0] = cosines[position, T.ramp(v * LANES, 1, LANES)]
        turn[1] = sines[position, T.ramp(v * LANES, 1, LANES)]
        out[b, s, T.ramp(first + v * LANES, 1, LANES)] = _first(pair[0], pair[1], turn[0], turn[1])
        out[b, s, T.ramp(first + p.pairs + v * LANES, 1, LANES)] = _second(pair[0], pair[1], turn[0], turn[1])
    for i in range(p.pairs // LANES * LANES, p.pairs):
        last = registers((2,), "float32")
        last[0] = x[b, s, first + i]
        last[1] = x[b, s, first + p.pairs + i]
        out[b, s, first + i] = _first(last[0], last[1], cosines[position, i], sines[position, i])
        out[b, s, first + p.pairs + i] = _second(last[0], last[1], cosines[position, i], sines[position, i])
    for i in range(2 * p.pairs, p.head_size):
        out[b, s, first + i] = x[b, s, first + i]


@macro
def _turn_token(p, x, out, cosines, sines, positions, b, s):
    position = registers((1,), "int64")
    position[0] = T.Select(
        T.And(positions[b, s] >= 0, positions[b, s] < p.positions), positions[b, s], T.int64(0)
    )
    for head in range(p.heads):
        _turn_head(p, x, out, cosines, sines, b, s, position[0], head * p.head_size)


def rotary(turns: Turns) -> tirx.PrimFunc:
    """Builds ``y = x`` with each pair ``(a, b)`` of a head replaced by ``(a cos - b sin, b cos + a sin)``.

    One product is rounded, the other is part of a fused multiply-add: every core gives the same bits. A position
    outside the tables reads row 0 (the runtimes refuse such texts first).

    Returns:
        A function of x float32 ``[B, S, heads*head_size]``, cosines and sines float32 ``[positions, pairs]``, positions
        int64 ``[B, S]``, and the output float32 ``[B, S, heads*head_size]``.
    """
    p = turns
    batch, tokens = (tirx.Var(name, "int64") for name in ("batch", "tokens"))

    @script.prim_func(s_tir=True)
    def turn(x_: T.handle, cosines_: T.handle, sines_: T.handle, positions_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, tokens, p.width), "float32")
        cosines = T.match_buffer(cosines_, (p.positions, p.pairs), "float32")
        sines = T.match_buffer(sines_, (p.positions, p.pairs), "float32")
        positions = T.match_buffer(positions_, (batch, tokens), "int64")
        out = T.match_buffer(y, (batch, tokens, p.width), "float32")
        with T.sblock("root"):
            if batch * tokens < PARALLEL_ROWS:
                for i in range(batch * tokens):
                    _turn_token(p, x, out, cosines, sines, positions, i // tokens, i % tokens)
            else:
                for i in T.parallel(batch * tokens):
                    _turn_token(p, x, out, cosines, sines, positions, i // tokens, i % tokens)

    return turn
