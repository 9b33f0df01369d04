"""The integer product of a low-bit linear layer: int8 activations times packed codes, then back to float."""

import dataclasses
from typing import Any, Literal

from tvm import tirx
from tvm.script import tirx as T

from edgeq.errors import UnsupportedError
from edgeq.formats import ACTIVATION_LEVELS, ROW_TILE, PackedMatrix
from edgeq.targets.isa import Isa
from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import fma, gelu, gelu_tanh, splat
from edgeq.targets.kernels.quantize_rows import padded_columns
from edgeq.targets.kernels.shapes import leading_dimensions

Epilogue = Literal["none", "gelu", "gelu_tanh"]
EPILOGUES = {"none": lambda y: y, "gelu": gelu, "gelu_tanh": gelu_tanh}


@dataclasses.dataclass(frozen=True)
class _Correction:
    """``sum (code - zero_point) * q`` from ``sum code * q`` in integers: ``factor * total - offset * sum q``.

    A half-integer zero point is doubled; the scale takes the factor back, exactly.
    """

    factor: int
    offset: int

    @classmethod
    def of(cls, matrix: PackedMatrix, isa: Isa) -> "_Correction":
        zero_point = matrix.zero_point - (128 if isa.signed_codes and matrix.bits == 8 else 0)
        factor = 1 if zero_point == int(zero_point) else 2
        return cls(factor, int(zero_point * factor))


def check_accumulator(matrix: PackedMatrix, name: str) -> None:
    """Refuses a matrix whose sums could leave 32 bits.

    Raises:
        UnsupportedError: If ``columns`` is too large for the bit width.
    """
    largest = 2 * matrix.columns * (2**matrix.bits - 1) * ACTIVATION_LEVELS
    if largest >= 2**31:
        raise UnsupportedError(
            f"{name}: {matrix.columns} columns of {matrix.bits}-bit codes can overflow a 32-bit sum; "
            "split the layer or use fewer bits"
        )


def low_bit_matmul(
    isa: Isa, matrix: PackedMatrix, *, rank: int, has_bias: bool, epilogue: Epilogue = "none"
) -> tirx.PrimFunc:
    """Builds ``y = epilogue(sum (code - zero_point) * q * (scale * a_scale) + bias)``.

    Args:
        isa: Instruction set to compile for.
        matrix: The packed weight.
        rank: Number of leading dimensions of the activations.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to the result while it is in registers.

    Returns:
        A function of codes int32 ``[..., padded(K)/4]``, activation scale float32 ``[...]``, code sum int32
        ``[...]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``, bias float32 ``[N]`` or
        ``[1]``, and the output float32 ``[..., N]``.
    """
    lead, rows = leading_dimensions(rank)
    n_blocks, k_blocks, _, _ = matrix.packed_shape
    fields, bits, lanes, vectors = matrix.fields, matrix.bits, isa.lanes, isa.vectors
    words = padded_columns(matrix.columns) // 4
    outputs, scales, biases = matrix.rows, matrix.scales, matrix.rows if has_bias else 1
    full_blocks, tail_rows = divmod(outputs, ROW_TILE)
    vector = f"int32x{lanes}"
    mask, flip = (2**bits - 1) * 0x01010101, isa.signed_codes and bits == 8
    correction = _Correction.of(matrix, isa)
    row_tile = isa.row_tile
    block_tile = 2 if lanes == ROW_TILE else 1
    n_tiles, odd_blocks = divmod(n_blocks, block_tile)
    apply_epilogue = EPILOGUES[epilogue]

    def codes_of(word: Any, field: int) -> Any:
        """One field of a packed word as bytes: one shift and one mask (one flip for signed 8-bit codes)."""
        if bits == 8:
            return T.bitwise_xor(word, T.broadcast(T.int32(-2139062144), lanes)) if flip else word
        return T.bitwise_and(
            T.shift_right(word, T.broadcast(T.int32(bits) * field, lanes)), T.broadcast(T.int32(mask), lanes)
        )

    def row_parameter(buffer: Any, index: Any, width: int, count: int) -> Any:
        """Scale or bias of ``width`` neighbouring rows."""
        if count == 1 or width == 1:
            value = buffer[0 if count == 1 else index]
            return T.broadcast(value, width) if width > 1 else value
        return buffer[T.ramp(index, 1, width)]

    def dequantize(total: Any, code_sum: Any, a_scale: Any, scale: Any, bias: Any) -> Any:
        kind = str(scale.ty)
        width = int(scale.ty.dtype.lanes)

        def spread(value: Any) -> Any:
            return value if width == 1 else T.broadcast(value, width)

        exact = total * spread(T.int32(correction.factor)) - spread(code_sum * T.int32(correction.offset))
        combined = scale * spread(a_scale)
        if correction.factor == 2:
            combined = combined * splat(0.5, combined)
        return apply_epilogue(fma(T.cast(exact, kind), combined, bias))

    @macro
    def accumulate(q_words, weight, acc, m, n_block, tile_m, tile_n):
        for k_block in range(k_blocks):
            for field in T.unroll(fields):
                codes = T.alloc_buffer((tile_n * vectors,), vector, scope="local")
                for v in T.unroll(tile_n * vectors):
                    codes[v] = codes_of(
                        weight[n_block + v // vectors, k_block, T.ramp((v % vectors) * lanes, 1, lanes)], field
                    )
                for r in T.unroll(tile_m):
                    for v in T.unroll(tile_n * vectors):
                        acc[r * tile_n * vectors + v] = isa.dot4(
                            acc[r * tile_n * vectors + v],
                            codes[v],
                            T.broadcast(q_words[m + r, k_block * fields + field], lanes),
                            bits,
                        )

    @macro
    def store_block(out, acc_row, a_scales, code_sums, scale, bias, m, block, first):
        for v in T.unroll(vectors):
            n = block * ROW_TILE + v * lanes
            if n + lanes <= outputs:
                out[m, T.ramp(n, 1, lanes)] = dequantize(
                    acc_row[first + v],
                    code_sums[m],
                    a_scales[m],
                    row_parameter(scale, n, lanes, scales),
                    row_parameter(bias, n, lanes, biases),
                )
        if tail_rows > 0 and block == full_blocks:
            spill = T.alloc_buffer((ROW_TILE,), "int32", scope="local")
            for v in T.unroll(vectors):
                spill[T.ramp(v * lanes, 1, lanes)] = acc_row[first + v]
            for t in range(tail_rows % lanes):
                column = tail_rows // lanes * lanes + t
                out[m, full_blocks * ROW_TILE + column] = dequantize(
                    spill[column],
                    code_sums[m],
                    a_scales[m],
                    row_parameter(scale, full_blocks * ROW_TILE + column, 1, scales),
                    row_parameter(bias, full_blocks * ROW_TILE + column, 1, biases),
                )

    @macro
    def tile(q_words, weight, out, a_scales, code_sums, scale, bias, m, n_block, tile_m, tile_n):
        acc = T.alloc_buffer((tile_m * tile_n * vectors,), vector, scope="local")
        for a in T.unroll(tile_m * tile_n * vectors):
            acc[a] = T.broadcast(T.int32(0), lanes)
        accumulate(q_words, weight, acc, m, n_block, tile_m, tile_n)
        for r in T.unroll(tile_m):
            for b in T.unroll(tile_n):
                store_block(
                    out, acc, a_scales, code_sums, scale, bias, m + r, n_block + b, (r * tile_n + b) * vectors
                )

    @macro
    def all_rows(q_words, weight, out, a_scales, code_sums, scale, bias, n, tile_n):
        for m_tile in range(rows // row_tile):
            tile(q_words, weight, out, a_scales, code_sums, scale, bias, m_tile * row_tile, n, row_tile, tile_n)
        if row_tile > 4 and rows % row_tile >= 4:
            tile(q_words, weight, out, a_scales, code_sums, scale, bias, rows // row_tile * row_tile, n, 4, tile_n)
        if rows % 4 >= 2:
            tile(q_words, weight, out, a_scales, code_sums, scale, bias, rows // 4 * 4, n, 2, tile_n)
        if rows % 2 == 1:
            tile(q_words, weight, out, a_scales, code_sums, scale, bias, rows - 1, n, 1, tile_n)

    @T.prim_func(s_tir=True)
    def product(
        q: T.handle,
        a_scale: T.handle,
        code_sum: T.handle,
        w: T.handle,
        scale_: T.handle,
        bias_: T.handle,
        y: T.handle,
    ):
        T.func_attr({"tirx.noalias": True})
        q_buffer = T.match_buffer(q, (*lead, words), "int32")
        a_buffer = T.match_buffer(a_scale, (*lead,), "float32")
        sum_buffer = T.match_buffer(code_sum, (*lead,), "int32")
        weight = T.match_buffer(w, (n_blocks, k_blocks, ROW_TILE), "int32")
        scale = T.match_buffer(scale_, (scales,), "float32")
        bias = T.match_buffer(bias_, (biases,), "float32")
        y_buffer = T.match_buffer(y, (*lead, outputs), "float32")
        with T.sblock("root"):
            q_words = T.decl_buffer((rows, words), "int32", data=q_buffer.data)
            a_scales = T.decl_buffer((rows,), "float32", data=a_buffer.data)
            code_sums = T.decl_buffer((rows,), "int32", data=sum_buffer.data)
            out = T.decl_buffer((rows, outputs), "float32", data=y_buffer.data)
            for n_tile in T.parallel(n_tiles):
                all_rows(q_words, weight, out, a_scales, code_sums, scale, bias, n_tile * block_tile, block_tile)
            if odd_blocks > 0:
                all_rows(q_words, weight, out, a_scales, code_sums, scale, bias, n_blocks - 1, 1)

    return product
