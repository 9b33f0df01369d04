"""The integer matmul of a low-bit linear layer whose result is added to what came past the layer."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import PackedMatrix
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.low_bit_matmul import whole_matmul
from edgeq.targets.compiler.kernels.matmul_settings import Epilogue, MatmulSettings, Operands
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns
from edgeq.targets.compiler.kernels.shapes import leading_dimensions


def residual_matmul(
    isa: Isa,
    matrix: PackedMatrix,
    *,
    rank: int,
    has_bias: bool,
    epilogue: Epilogue = "none",
    seven_bits: bool = False,
) -> tirx.PrimFunc:
    """Builds :func:`~edgeq.targets.compiler.kernels.low_bit_matmul.low_bit_matmul` with a last addition in registers.

    Returns:
        A function of the arguments of that kernel, what is added float32 ``[..., N]`` behind the bias, and the output
        float32 ``[..., N]``.
    """
    lead, tokens = leading_dimensions(rank)
    p = MatmulSettings(isa, matrix, has_bias, epilogue, seven_bits)
    words = padded_columns(matrix.columns) // 4

    @script.prim_func(s_tir=True)
    def product(
        q: T.handle,
        a_scale: T.handle,
        code_sum: T.handle,
        w: T.handle,
        scale_: T.handle,
        bias_: T.handle,
        added_: T.handle,
        y: T.handle,
    ):
        T.func_attr({"tirx.noalias": True})
        q_buffer = T.match_buffer(q, (*lead, words), "int32")
        a_buffer = T.match_buffer(a_scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        weight = T.match_buffer(w, matrix.packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        bias = T.match_buffer(bias_, (matrix.rows if has_bias else 1,), "float32")
        added_buffer = T.match_buffer(added_, (*lead, matrix.rows), "float32")
        y_buffer = T.match_buffer(y, (*lead, matrix.rows), "float32")
        with T.sblock("root"):
            q_words = T.decl_buffer((tokens, words), "int32", data=q_buffer.data)
            a_scales = T.decl_buffer((tokens,), "float32", data=a_buffer.data)
            code_sums = T.decl_buffer((tokens,), "int32", data=sum_buffer.data)
            added = T.decl_buffer((tokens, matrix.rows), "float32", data=added_buffer.data)
            out = T.decl_buffer((tokens, matrix.rows), "float32", data=y_buffer.data)
            whole_matmul(p, Operands(q_words, a_scales, code_sums, weight, scale, bias, out, added), tokens)

    return product
