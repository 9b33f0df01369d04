"""Element-wise functions that no other kernel could take in.

Products have kernels of their own: TVM would fuse one with an addition behind it, and LLVM would then round once on a
core with fused multiply-accumulates, and twice on another.
"""

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, erf, gelu, gelu_tanh, relu, sigmoid, silu, splat, tanh
from edgeq.targets.compiler.kernels.shapes import leading_dimensions

FUNCTIONS = {
    "Erf": erf,
    "Gelu": gelu,
    "GeluTanh": gelu_tanh,
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Silu": silu,
    "Tanh": tanh,
}
"""Functions by the name of the ONNX operator."""


def elementwise(name: str, columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = f(x)`` for one of ``FUNCTIONS`` over float32 ``[..., columns]``."""
    return _on_each(FUNCTIONS[name], columns, rank=rank)


def scaled(factor: float, columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = x * factor`` over float32 ``[..., columns]``."""
    return _on_each(lambda x: x * splat(factor, x), columns, rank=rank)


def _on_each(function: Callable[[Any], Any], columns: int, *, rank: int) -> tirx.PrimFunc:
    lead, rows = leading_dimensions(rank)
    full, tail = divmod(columns, LANES)

    @script.prim_func(s_tir=True)
    def apply(x: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            for i in T.parallel(rows):
                for c in range(full):
                    out[i, T.ramp(c * LANES, 1, LANES)] = function(rows_in[i, T.ramp(c * LANES, 1, LANES)])
                for c in range(tail):
                    out[i, full * LANES + c] = function(rows_in[i, full * LANES + c])

    return apply


def product(columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = a * b`` over two tensors float32 ``[..., columns]`` of one shape."""
    lead, rows = leading_dimensions(rank)
    full, tail = divmod(columns, LANES)

    @script.prim_func(s_tir=True)
    def apply(a: T.handle, b: T.handle, y: T.handle):
        # No "noalias" here: a tensor may be multiplied with itself.
        a_buffer = T.match_buffer(a, (*lead, columns), "float32")
        b_buffer = T.match_buffer(b, (*lead, columns), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            rows_a = T.decl_buffer((rows, columns), "float32", data=a_buffer.data)
            rows_b = T.decl_buffer((rows, columns), "float32", data=b_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            for i in T.parallel(rows):
                for c in range(full):
                    out[i, T.ramp(c * LANES, 1, LANES)] = (
                        rows_a[i, T.ramp(c * LANES, 1, LANES)] * rows_b[i, T.ramp(c * LANES, 1, LANES)]
                    )
                for c in range(tail):
                    out[i, full * LANES + c] = rows_a[i, full * LANES + c] * rows_b[i, full * LANES + c]

    return apply
