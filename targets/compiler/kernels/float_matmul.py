"""The matmul of float32 activations and a dense float32 matrix: layers that stayed float.

The matrix comes in panels of 16 outputs, ``[ceil(N/16), K, 16]``, so that a tile reads memory in a stream: rows of a
wide matrix lie so far apart that every step would touch another page.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, fma, prefetch, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import leading_dimensions, row_parameter

SINGLE_TOKEN_PANELS = 4
"""Panels of a tile of one token: enough independent sums to hide the latency of a multiply-accumulate."""


def panels(matrix: np.ndarray) -> np.ndarray:
    """Returns a ``[K, N]`` matrix as panels float32 ``[ceil(N/16), K, 16]``, zeros behind the last output."""
    inputs, outputs = matrix.shape
    padded = np.zeros((inputs, panel_count(outputs) * LANES), np.float32)
    padded[:, :outputs] = matrix
    return np.ascontiguousarray(padded.reshape(inputs, -1, LANES).transpose(1, 0, 2))


def panel_count(outputs: int) -> int:
    """Returns the number of panels of ``outputs`` columns."""
    return -(-outputs // LANES)


class Operands(NamedTuple):
    """Buffers of one matmul, activations and output seen as rows."""

    x: Any
    w: Any
    bias: Any
    out: Any


@dataclasses.dataclass(frozen=True)
class FloatProduct:
    """What is fixed when the kernel is built.

    Attributes:
        inputs: K.
        outputs: N.
        has_bias: Whether the bias has one entry an output.
        row_tile: Tokens of a full tile.
        panel_tile: Panels of a tile of several tokens.
        prefetches: Whether a tile asks for the weights of the next one.
    """

    inputs: int
    outputs: int
    has_bias: bool
    row_tile: int
    panel_tile: int
    prefetches: bool

    @property
    def panels(self) -> int:
        """Panels of the matrix."""
        return panel_count(self.outputs)

    def bias(self, operands: Operands, first: Any, width: int) -> Any:
        """Biases of ``width`` neighbouring outputs."""
        return row_parameter(operands.bias, first, width, self.outputs if self.has_bias else 1)


@macro
def _store(p, o, acc, m, panel):
    if panel < p.outputs // LANES:
        o.out[m, T.ramp(panel * LANES, 1, LANES)] = acc + p.bias(o, panel * LANES, LANES)
    else:
        sums = registers((LANES,), "float32")
        sums[T.ramp(0, 1, LANES)] = acc
        for last in range(p.outputs // LANES * LANES, p.outputs):
            o.out[m, last] = sums[last % LANES] + p.bias(o, last, 1)


@macro
def _tile(p, o, m, panel, tokens, count, ahead):
    acc = registers((tokens * count,), "float32x16")
    for a in T.unroll(tokens * count):
        acc[a] = T.broadcast(T.float32(0), LANES)
    for k in range(p.inputs):
        if p.prefetches:
            prefetch(o.w[ahead, k, 0])
        for r in T.unroll(tokens):
            for c in T.unroll(count):
                acc[r * count + c] = fma(
                    T.broadcast(o.x[m + r, k], LANES), o.w[panel + c, k, T.ramp(0, 1, LANES)], acc[r * count + c]
                )
    for r in T.unroll(tokens):
        for c in T.unroll(count):
            _store(p, o, acc[r * count + c], m + r, panel + c)


@macro
def _all_tokens(p, o, rows, panel, count):
    """Full tiles, then what is left in tiles of 4, 2 and 1."""
    for tile in range(rows // p.row_tile):
        _tile(p, o, tile * p.row_tile, panel, p.row_tile, count, panel + count + tile % count)
    if p.row_tile > 4 and rows % p.row_tile >= 4:
        _tile(p, o, rows // p.row_tile * p.row_tile, panel, 4, count, panel + count)
    if p.row_tile > 2 and rows % 4 >= 2:
        _tile(p, o, rows // 4 * 4, panel, 2, count, panel + count)
    if rows % 2 == 1:
        _tile(p, o, rows - 1, panel, 1, count, panel + count)


@macro
def _panels_in_parallel(p, o, rows, count):
    for group in T.parallel(p.panels // count):
        _all_tokens(p, o, rows, group * count, count)
    for rest in range(p.panels // count * count, p.panels):
        _all_tokens(p, o, rows, rest, 1)


def float_matmul(isa: Isa, inputs: int, outputs: int, *, rank: int, has_bias: bool) -> tirx.PrimFunc:
    """Builds ``y = x w + bias`` with one fused multiply-add accumulator per output, in ascending order of k.

    Args:
        isa: Instruction set to compile for (its register count sets the tile, which changes no result).
        inputs: K.
        outputs: N.
        rank: Number of leading dimensions of x.
        has_bias: Whether the bias has one entry an output; otherwise it is ``[1]`` and holds 0.

    Returns:
        A function of x float32 ``[..., K]``, w float32 ``[ceil(N/16), K, 16]`` (see :func:`panels`), bias float32
        ``[N]`` or ``[1]``, and the output float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    p = FloatProduct(inputs, outputs, has_bias, isa.row_tile, isa.float_panels, isa.prefetches_weights)
    # One token reads its panels in streams, which the processor's own prefetch follows.
    single = dataclasses.replace(p, prefetches=False)

    @script.prim_func(s_tir=True)
    def product(x_: T.handle, w_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x_, (*lead, inputs), "float32")
        w = T.match_buffer(w_, (p.panels, inputs, LANES), "float32")
        bias = T.match_buffer(bias_, (outputs if has_bias else 1,), "float32")
        y_buffer = T.match_buffer(y, (*lead, outputs), "float32")
        with T.sblock("root"):
            x = T.decl_buffer((rows, inputs), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, outputs), "float32", data=y_buffer.data)
            if rows == 1:
                _panels_in_parallel(single, Operands(x, w, bias, out), rows, SINGLE_TOKEN_PANELS)
            else:
                _panels_in_parallel(p, Operands(x, w, bias, out), rows, p.panel_tile)

    return product
