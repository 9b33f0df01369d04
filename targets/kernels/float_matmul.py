"""The product of float32 activations and a dense float32 matrix: layers that stayed float."""

from __future__ import annotations

from typing import Any, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import LANES, fma, registers
from edgeq.targets.kernels.shapes import leading_dimensions, row_parameter

TOKEN_TILE = 4
"""Tokens whose accumulators are held in registers at once."""


class Operands(NamedTuple):
    """Buffers of one product, activations and output seen as rows, and its sizes."""

    x: Any
    w: Any
    bias: Any
    out: Any
    inputs: int
    outputs: int
    biases: int


@macro
def _vector_tile(o, m, block, tile):
    acc = registers((tile,), "float32x16")
    for r in T.unroll(tile):
        acc[r] = T.broadcast(T.float32(0), LANES)
    for k in range(o.inputs):
        for r in T.unroll(tile):
            acc[r] = fma(T.broadcast(o.x[m + r, k], LANES), o.w[k, T.ramp(block * LANES, 1, LANES)], acc[r])
    for r in T.unroll(tile):
        o.out[m + r, T.ramp(block * LANES, 1, LANES)] = acc[r] + row_parameter(o.bias, block * LANES, LANES, o.biases)


@macro
def _vector_of_outputs(o, block, rows):
    for tile in range(rows // TOKEN_TILE):
        _vector_tile(o, tile * TOKEN_TILE, block, TOKEN_TILE)
    for m in range(rows % TOKEN_TILE):
        _vector_tile(o, rows // TOKEN_TILE * TOKEN_TILE + m, block, 1)


@macro
def _last_outputs(o, rows):
    for m in range(rows):
        for last in range(o.outputs // LANES * LANES, o.outputs):
            acc = registers((1,), "float32")
            acc[0] = T.float32(0)
            for k in range(o.inputs):
                acc[0] = fma(o.x[m, k], o.w[k, last], acc[0])
            o.out[m, last] = acc[0] + row_parameter(o.bias, last, 1, o.biases)


def float_matmul(inputs: int, outputs: int, *, rank: int, has_bias: bool) -> tirx.PrimFunc:
    """Builds ``y = x w + bias`` with one fused multiply-add accumulator per output, in ascending order of k.

    Args:
        inputs: K.
        outputs: N.
        rank: Number of leading dimensions of x.
        has_bias: Whether the bias has one entry an output; otherwise it is ``[1]`` and holds 0.

    Returns:
        A function of x float32 ``[..., K]``, w float32 ``[K, N]``, bias float32 ``[N]`` or ``[1]``, and the output
        float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    biases = outputs if has_bias else 1

    @T.prim_func(s_tir=True)
    def product(x_: T.handle, w_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x_, (*lead, inputs), "float32")
        w = T.match_buffer(w_, (inputs, outputs), "float32")
        bias = T.match_buffer(bias_, (biases,), "float32")
        y_buffer = T.match_buffer(y, (*lead, outputs), "float32")
        with T.sblock("root"):
            x = T.decl_buffer((rows, inputs), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, outputs), "float32", data=y_buffer.data)
            for block in T.parallel(outputs // LANES + 1):
                if block < outputs // LANES:
                    _vector_of_outputs(Operands(x, w, bias, out, inputs, outputs, biases), block, rows)
                else:
                    _last_outputs(Operands(x, w, bias, out, inputs, outputs, biases), rows)

    return product
