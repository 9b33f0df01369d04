"""The kernels of low-bit layers for matrices of any size: N, K and the zero point are arguments of the call.

A module that is compiled for one model has a kernel for each size. A library that serves any model has these: the
same tiles, sums and ways out, so the results are the same bits. Every parameter of a row is spelled out here: scale
and bias have N entries.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import PackedMatrix
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import low_bit_matmul, script, weight_only_matmul
from edgeq.targets.compiler.kernels.low_bit_embedding import decode_rows
from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings
from edgeq.targets.compiler.kernels.matmul_settings import Operands as IntegerOperands
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns, quantize_rows
from edgeq.targets.compiler.kernels.weight_only_matmul import Operands as FloatOperands
from edgeq.targets.compiler.kernels.weight_only_matmul import WeightOnlyProduct


@dataclasses.dataclass(frozen=True)
class _AnyMatrix(PackedMatrix):
    """A matrix whose rows, columns, scales and zero point are expressions, so that there is nothing to check yet."""

    def __post_init__(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class _AnySizeSettings(MatmulSettings):
    """Takes twice the zero point, an integer for every grid, and halves the scale instead: exact as well."""

    @property
    def pairs(self) -> bool:
        """False: how many columns there are is not known yet."""
        return False

    @property
    def tiles(self) -> bool:
        """False: whether codes stand in memory as tiles is not known yet."""
        return False

    @property
    def factor(self) -> int:
        """2, whatever the zero point."""
        return 2

    @property
    def offset(self) -> Any:
        """``zero_point * factor`` of the codes that the dot product sees."""
        doubled = T.cast(self.matrix.zero_point * T.float32(2), "int32")
        return doubled - T.int32(2 * self.centre) if self.centre else doubled


def any_quantizer(*, static: bool) -> tirx.PrimFunc:
    """Builds :func:`~edgeq.targets.compiler.kernels.quantize_rows.quantize_rows` for rows of any length."""
    return quantize_rows(tirx.Var("columns", "int64"), rank=1, static=static)


def any_low_bit_matmul(isa: Isa, bits: int) -> tirx.PrimFunc:
    """Builds the integer matmul of codes of ``bits`` bits with quantized rows.

    Returns:
        A function of codes int32 ``[M, padded(K)/4]``, activation scale float32 ``[M]``, code sum int32 ``[M]``,
        weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]``, bias float32 ``[N]``, the output float32
        ``[M, N]``, and the numbers N, K (int64) and zero point (float32).
    """

    @script.prim_func(s_tir=True)
    def product(
        q: T.handle,
        a_scale: T.handle,
        code_sum: T.handle,
        w: T.handle,
        scale_: T.handle,
        bias_: T.handle,
        y: T.handle,
        rows: T.int64,
        columns: T.int64,
        zero_point: T.float32,
    ):
        T.func_attr({"tirx.noalias": True})
        tokens = T.int64()
        words = T.match_buffer(q, (tokens, padded_columns(columns) // 4), "int32")
        a_scales = T.match_buffer(a_scale, (tokens,), "float32")
        code_sums = T.match_buffer(code_sum, (tokens,), "int32")
        weight = T.match_buffer(w, _AnyMatrix(rows, columns, bits, zero_point, rows).packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (rows,), "float32")
        bias = T.match_buffer(bias_, (rows,), "float32")
        out = T.match_buffer(y, (tokens, rows), "float32")
        with T.sblock("root"):
            low_bit_matmul.whole_matmul(
                _AnySizeSettings(isa, _AnyMatrix(rows, columns, bits, zero_point, rows), True, "none"),
                IntegerOperands(words, a_scales, code_sums, weight, scale, bias, out),
                tokens,
            )

    return product


def any_weight_only_matmul(isa: Isa, bits: int) -> tirx.PrimFunc:
    """Builds the matmul of codes of ``bits`` bits with float32 rows.

    Returns:
        A function of x float32 ``[M, K]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]``, bias float32
        ``[N]``, the output float32 ``[M, N]``, and the numbers N, K (int64) and zero point (float32).
    """

    @script.prim_func(s_tir=True)
    def product(
        x: T.handle,
        w: T.handle,
        scale_: T.handle,
        bias_: T.handle,
        y: T.handle,
        rows: T.int64,
        columns: T.int64,
        zero_point: T.float32,
    ):
        T.func_attr({"tirx.noalias": True})
        tokens = T.int64()
        row_in = T.match_buffer(x, (tokens, columns), "float32")
        weight = T.match_buffer(w, _AnyMatrix(rows, columns, bits, zero_point, rows).packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (rows,), "float32")
        bias = T.match_buffer(bias_, (rows,), "float32")
        out = T.match_buffer(y, (tokens, rows), "float32")
        with T.sblock("root"):
            weight_only_matmul.weight_only_product(
                WeightOnlyProduct(_AnyMatrix(rows, columns, bits, zero_point, rows), True, "none", isa.row_tile),
                FloatOperands(row_in, weight, scale, bias, out),
                tokens,
                isa.float_panels,
            )

    return product


def any_low_bit_embedding(bits: int) -> tirx.PrimFunc:
    """Builds the gathering of rows of a table of ``bits`` bits.

    Returns:
        A function of ids int64 ``[M]``, table int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]``, the output float32
        ``[M, K]``, and the numbers N, K (int64) and zero point (float32).
    """

    @script.prim_func(s_tir=True)
    def gather(
        ids_: T.handle,
        table_: T.handle,
        scale_: T.handle,
        y: T.handle,
        rows: T.int64,
        columns: T.int64,
        zero_point: T.float32,
    ):
        T.func_attr({"tirx.noalias": True})
        tokens = T.int64()
        ids = T.match_buffer(ids_, (tokens,), "int64")
        table = T.match_buffer(table_, _AnyMatrix(rows, columns, bits, zero_point, rows).packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (rows,), "float32")
        out = T.match_buffer(y, (tokens, columns), "float32")
        with T.sblock("root"):
            decode_rows(_AnyMatrix(rows, columns, bits, zero_point, rows), ids, table, scale, out, tokens)

    return gather
