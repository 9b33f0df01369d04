"""Element-wise functions of one float tensor that no other kernel could take in."""

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels.numerics import LANES, erf, gelu, gelu_tanh, relu, tanh
from edgeq.targets.compiler.kernels.shapes import leading_dimensions

FUNCTIONS = {"Erf": erf, "Gelu": gelu, "GeluTanh": gelu_tanh, "Relu": relu, "Tanh": tanh}
"""Functions by the name of the ONNX operator."""


def elementwise(name: str, columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = f(x)`` for one of ``FUNCTIONS`` over float32 ``[..., columns]``."""
    lead, rows = leading_dimensions(rank)
    function = FUNCTIONS[name]
    full, tail = divmod(columns, LANES)

    @T.prim_func(s_tir=True)
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
