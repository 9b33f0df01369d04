"""Layer normalisation that hands on int8 as well: what reads it next is a low-bit linear layer.

A row is normalised and then quantized while it is in the first cache. Both are the steps of the kernels that do one
of the two, so the results are the same bits.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.layer_norm import Rows, normalise_row
from edgeq.targets.compiler.kernels.quantize_rows import dynamic_row, padded_columns
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS, leading_dimensions


@macro
def _row(p, i, gamma, beta, out, words, scales, sums, epsilon):
    normalise_row(p, i, gamma, beta, out, epsilon)
    dynamic_row(out, words, scales, sums, i, p.columns)


@macro
def _all_rows(p, rows, gamma, beta, out, words, scales, sums, epsilon):
    if rows < PARALLEL_ROWS:
        for i in range(rows):
            _row(p, i, gamma, beta, out, words, scales, sums, epsilon)
    else:
        for i in T.parallel(rows):
            _row(p, i, gamma, beta, out, words, scales, sums, epsilon)


def quantized_layer_norm(
    columns: int, *, rank: int, epsilon: float, residual: bool, centred: bool = True
) -> tirx.PrimFunc:
    """Builds :func:`~edgeq.targets.compiler.kernels.layer_norm.layer_norm` and the quantizer of its rows in one.

    Args:
        columns: K, the length of a row.
        rank: Number of leading dimensions.
        epsilon: Added to the variance.
        residual: Whether a second tensor is added before the normalisation.
        centred: Whether the mean is taken away.

    Returns:
        A function of x float32 ``[..., K]``, (the residual float32 ``[..., K]``,) gamma float32 ``[K]``, beta float32
        ``[K]``, and the outputs: y float32 ``[..., K]``, its codes as int32 ``[..., padded(K)/4]``, their scale float32
        ``[...]`` and their sum int32 ``[...]``.
    """
    kernel = _with_residual if residual else _plain
    return kernel(columns, rank=rank, epsilon=epsilon, centred=centred)


def _plain(columns: int, *, rank: int, epsilon: float, centred: bool) -> tirx.PrimFunc:
    lead, count = leading_dimensions(rank)
    width = padded_columns(columns) // 4

    @script.prim_func(s_tir=True)
    def plain(
        x: T.handle, gamma_: T.handle, beta_: T.handle, y: T.handle, q: T.handle, scale: T.handle, code_sum: T.handle
    ):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        gamma = T.match_buffer(gamma_, (columns,), "float32")
        beta = T.match_buffer(beta_, (columns,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        q_buffer = T.match_buffer(q, (*lead, width), "int32")
        scale_buffer = T.match_buffer(scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((count, columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((count, columns), "float32", data=y_buffer.data)
            words = T.decl_buffer((count, width), "int32", data=q_buffer.data)
            scales = T.decl_buffer((count,), "float32", data=scale_buffer.data)
            sums = T.decl_buffer((count,), "int32", data=sum_buffer.data)
            _all_rows(Rows(columns, (rows_in,), centred), count, gamma, beta, out, words, scales, sums, epsilon)

    return plain


def _with_residual(columns: int, *, rank: int, epsilon: float, centred: bool) -> tirx.PrimFunc:
    lead, count = leading_dimensions(rank)
    width = padded_columns(columns) // 4

    @script.prim_func(s_tir=True)
    def with_residual(
        x: T.handle, added: T.handle, gamma_: T.handle, beta_: T.handle,
        y: T.handle, q: T.handle, scale: T.handle, code_sum: T.handle,
    ):  # fmt: skip
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x, (*lead, columns), "float32")
        added_buffer = T.match_buffer(added, (*lead, columns), "float32")
        gamma = T.match_buffer(gamma_, (columns,), "float32")
        beta = T.match_buffer(beta_, (columns,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        q_buffer = T.match_buffer(q, (*lead, width), "int32")
        scale_buffer = T.match_buffer(scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        with T.sblock("root"):
            rows_in = T.decl_buffer((count, columns), "float32", data=x_buffer.data)
            rows_added = T.decl_buffer((count, columns), "float32", data=added_buffer.data)
            out = T.decl_buffer((count, columns), "float32", data=y_buffer.data)
            words = T.decl_buffer((count, width), "int32", data=q_buffer.data)
            scales = T.decl_buffer((count,), "float32", data=scale_buffer.data)
            sums = T.decl_buffer((count,), "int32", data=sum_buffer.data)
            _all_rows(
                Rows(columns, (rows_in, rows_added), centred), count, gamma, beta, out, words, scales, sums, epsilon
            )

    return with_residual
