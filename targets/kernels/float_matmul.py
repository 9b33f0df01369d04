"""Float products: a dense float32 matrix, and packed codes under float activations (weight-only layers)."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats import COLUMN_GROUP, ROW_TILE, PackedMatrix
from edgeq.targets.kernels.low_bit_matmul import EPILOGUES, Epilogue
from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import LANES, fma
from edgeq.targets.kernels.shapes import leading_dimensions

TOKEN_TILE = 4
"""Tokens whose accumulators are held in registers at once."""


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
    full, tail = divmod(outputs, LANES)
    biases = outputs if has_bias else 1

    def bias_of(bias: Any, n: Any, width: int) -> Any:
        if not has_bias:
            return T.broadcast(bias[0], width) if width > 1 else bias[0]
        return bias[T.ramp(n, 1, width)] if width > 1 else bias[n]

    @macro
    def vector_tile(x, w, bias, out, m, block, tile):
        acc = T.alloc_buffer((tile,), "float32x16", scope="local")
        for r in T.unroll(tile):
            acc[r] = T.broadcast(T.float32(0), LANES)
        for k in range(inputs):
            for r in T.unroll(tile):
                acc[r] = fma(T.broadcast(x[m + r, k], LANES), w[k, T.ramp(block * LANES, 1, LANES)], acc[r])
        for r in T.unroll(tile):
            out[m + r, T.ramp(block * LANES, 1, LANES)] = acc[r] + bias_of(bias, block * LANES, LANES)

    @macro
    def last_outputs(x, w, bias, out):
        for m in range(rows):
            for c in range(tail):
                acc = T.alloc_buffer((1,), "float32", scope="local")
                acc[0] = T.float32(0)
                for k in range(inputs):
                    acc[0] = fma(x[m, k], w[k, full * LANES + c], acc[0])
                out[m, full * LANES + c] = acc[0] + bias_of(bias, full * LANES + c, 1)

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
            for block in T.parallel(full + 1):
                if block < full:
                    for tile in range(rows // TOKEN_TILE):
                        vector_tile(x, w, bias, out, tile * TOKEN_TILE, block, TOKEN_TILE)
                    for m in range(rows % TOKEN_TILE):
                        vector_tile(x, w, bias, out, rows // TOKEN_TILE * TOKEN_TILE + m, block, 1)
                else:
                    last_outputs(x, w, bias, out)

    return product


def weight_only_matmul(
    matrix: PackedMatrix, *, rank: int, has_bias: bool, epilogue: Epilogue = "none"
) -> tirx.PrimFunc:
    """Builds ``y = epilogue((sum (code - zero_point) * x) * scale + bias)`` with float32 activations.

    Args:
        matrix: The packed weight.
        rank: Number of leading dimensions of x.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to the result while it is in registers.

    Returns:
        A function of x float32 ``[..., K]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``,
        bias float32 ``[N]`` or ``[1]``, and the output float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    n_blocks, k_blocks, _, _ = matrix.packed_shape
    fields, bits, columns, outputs = matrix.fields, matrix.bits, matrix.columns, matrix.rows
    full, tail = divmod(outputs, ROW_TILE)
    biases = outputs if has_bias else 1
    columns_per_block = COLUMN_GROUP * fields
    whole_blocks, last_columns = divmod(columns, columns_per_block)
    apply_epilogue = EPILOGUES[epilogue]

    def decoded(word: Any, column: Any) -> Any:
        """``code - zero_point`` of one column for 16 rows."""
        shift = (column % COLUMN_GROUP) * 8 + (column // COLUMN_GROUP) * bits
        codes = T.bitwise_and(
            T.shift_right(word, T.broadcast(T.cast(shift, "int32"), ROW_TILE)),
            T.broadcast(T.int32(2**bits - 1), ROW_TILE),
        )
        return T.cast(codes, "float32x16") - T.broadcast(T.float32(matrix.zero_point), ROW_TILE)

    def parameter(buffer: Any, n: Any, width: int, count: int) -> Any:
        if count == 1:
            return T.broadcast(buffer[0], width) if width > 1 else buffer[0]
        return buffer[T.ramp(n, 1, width)] if width > 1 else buffer[n]

    @macro
    def block_columns(x, weight, acc, m, n_block, k_block, count, tile):
        for column in T.unroll(count):
            w = T.alloc_buffer((1,), "float32x16", scope="local")
            w[0] = decoded(weight[n_block, k_block, T.ramp(0, 1, ROW_TILE)], column)
            for r in T.unroll(tile):
                acc[r] = fma(T.broadcast(x[m + r, k_block * columns_per_block + column], ROW_TILE), w[0], acc[r])

    @macro
    def token_tile(x, weight, scale, bias, out, m, n_block, tile):
        acc = T.alloc_buffer((tile,), "float32x16", scope="local")
        for r in T.unroll(tile):
            acc[r] = T.broadcast(T.float32(0), ROW_TILE)
        for k_block in range(whole_blocks):
            block_columns(x, weight, acc, m, n_block, k_block, columns_per_block, tile)
        if last_columns > 0:
            block_columns(x, weight, acc, m, n_block, whole_blocks, last_columns, tile)
        for r in T.unroll(tile):
            if n_block < full:
                out[m + r, T.ramp(n_block * ROW_TILE, 1, ROW_TILE)] = apply_epilogue(
                    fma(
                        acc[r],
                        parameter(scale, n_block * ROW_TILE, ROW_TILE, matrix.scales),
                        parameter(bias, n_block * ROW_TILE, ROW_TILE, biases),
                    )
                )
            else:
                spill = T.alloc_buffer((ROW_TILE,), "float32", scope="local")
                spill[T.ramp(0, 1, ROW_TILE)] = acc[r]
                for t in range(tail):
                    out[m + r, full * ROW_TILE + t] = apply_epilogue(
                        fma(
                            spill[t],
                            parameter(scale, full * ROW_TILE + t, 1, matrix.scales),
                            parameter(bias, full * ROW_TILE + t, 1, biases),
                        )
                    )

    @T.prim_func(s_tir=True)
    def product(x_: T.handle, w_: T.handle, scale_: T.handle, bias_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x_buffer = T.match_buffer(x_, (*lead, columns), "float32")
        weight = T.match_buffer(w_, (n_blocks, k_blocks, ROW_TILE), "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        bias = T.match_buffer(bias_, (biases,), "float32")
        y_buffer = T.match_buffer(y, (*lead, outputs), "float32")
        with T.sblock("root"):
            x = T.decl_buffer((rows, columns), "float32", data=x_buffer.data)
            out = T.decl_buffer((rows, outputs), "float32", data=y_buffer.data)
            for n_block in T.parallel(n_blocks):
                for tile in range(rows // TOKEN_TILE):
                    token_tile(x, weight, scale, bias, out, tile * TOKEN_TILE, n_block, TOKEN_TILE)
                for m in range(rows % TOKEN_TILE):
                    token_tile(x, weight, scale, bias, out, rows // TOKEN_TILE * TOKEN_TILE + m, n_block, 1)

    return product
