"""The integer product of a low-bit linear layer: int8 activations times packed codes, then back to float.

A tile is ``tokens x blocks`` of output held in registers: for each packed word of a block, a shift and a mask give
four codes of 16 rows, and one 4-way dot product a token takes them in. Tiles of neighbouring blocks run in parallel.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from tvm import tirx
from tvm.script import tirx as T

from edgeq.errors import UnsupportedError
from edgeq.formats import ACTIVATION_LEVELS, ROW_TILE, PackedMatrix
from edgeq.targets.isa import Isa
from edgeq.targets.kernels.macro import macro
from edgeq.targets.kernels.numerics import fma, gelu, gelu_tanh, registers, splat
from edgeq.targets.kernels.quantize_rows import padded_columns
from edgeq.targets.kernels.shapes import leading_dimensions, row_parameter

Epilogue = Literal["none", "gelu", "gelu_tanh"]
EPILOGUES = {"none": lambda y: y, "gelu": gelu, "gelu_tanh": gelu_tanh}

SINGLE_TOKEN_SUMS = 8
"""Independent sums of a tile of one token: enough to hide the latency of the dot product."""


class Operands(NamedTuple):
    """Buffers of one product, activations and output seen as rows."""

    words: Any
    a_scales: Any
    code_sums: Any
    weight: Any
    scale: Any
    bias: Any
    out: Any


@dataclasses.dataclass(frozen=True)
class LowBitProduct:
    """What is fixed when the kernel is built.

    ``sum (code - zero_point) * q`` is ``factor * total - offset * sum q`` in integers: a half-integer zero point is
    doubled, and the scale takes the factor back, exactly.
    """

    isa: Isa
    matrix: PackedMatrix
    has_bias: bool
    epilogue: Epilogue

    @property
    def flips_codes(self) -> bool:
        """Whether 8-bit codes become signed bytes."""
        return self.isa.signed_codes and self.matrix.bits == 8

    @property
    def zero_point(self) -> float:
        """Zero point of the codes that the dot product sees."""
        return self.matrix.zero_point - (128 if self.flips_codes else 0)

    @property
    def factor(self) -> int:
        """2 for a half-integer zero point, else 1."""
        return 1 if self.zero_point == int(self.zero_point) else 2

    @property
    def block_tile(self) -> int:
        """Blocks of a tile of several tokens."""
        return 2 if self.isa.lanes == ROW_TILE else 1

    @property
    def single_token_blocks(self) -> int:
        """Blocks of a tile of one token: few, so that the weights are read in one or two streams."""
        return 2 if self.isa.lanes == ROW_TILE else 1

    @property
    def slots(self) -> int:
        """Fields of a word that one token takes in where they stand, without a shift, each into a sum of its own."""
        return self.isa.fields_in_place(self.matrix.bits)

    @property
    def steps(self) -> int:
        """Words of a row that one token takes in at once, each into sums of their own."""
        return max(1, SINGLE_TOKEN_SUMS // (self.single_token_blocks * self.isa.vectors * self.slots))

    @property
    def full_blocks(self) -> int:
        """Blocks whose 16 rows all exist."""
        return self.matrix.rows // ROW_TILE

    @property
    def vector(self) -> str:
        """Type of an accumulator."""
        return f"int32x{self.isa.lanes}"

    def codes(self, word: Any, field: Any) -> Any:
        """One field of packed words as bytes."""
        bits, lanes = self.matrix.bits, self.isa.lanes
        if bits == 8:
            sign_bits = T.broadcast(T.int32(-2139062144), lanes)  # 0x80 in every byte
            return T.bitwise_xor(word, sign_bits) if self.flips_codes else word
        mask = T.broadcast(T.int32((2**bits - 1) * 0x01010101), lanes)
        return T.bitwise_and(T.shift_right(word, T.broadcast(T.int32(bits) * field, lanes)), mask)

    def slot_codes(self, word: Any, field: int) -> Any:
        """One field of packed words as bytes, times ``2**(bits * (field % slots))``."""
        bits, lanes, slots = self.matrix.bits, self.isa.lanes, self.slots
        if bits == 8:
            return self.codes(word, 0)
        if field >= slots:
            word = T.shift_right(word, T.broadcast(T.int32(field // slots * slots * bits), lanes))
        byte = (2**bits - 1) << (field % slots * bits)
        mask = int.from_bytes(bytes([byte] * 4), "little", signed=True)
        return T.bitwise_and(word, T.broadcast(T.int32(mask), lanes))

    def first_row(self, block: Any, vector: Any) -> Any:
        """First row of a vector of sums."""
        return block * ROW_TILE + vector * self.isa.lanes

    def scale_of(self, scale: Any, row: Any, width: int) -> Any:
        """Scales of ``width`` neighbouring rows."""
        return row_parameter(scale, row, width, self.matrix.scales)

    def bias_of(self, bias: Any, row: Any, width: int) -> Any:
        """Biases of ``width`` neighbouring rows."""
        return row_parameter(bias, row, width, self.matrix.rows if self.has_bias else 1)

    def result(self, total: Any, operands: Operands, m: Any, row: Any, width: int) -> Any:
        """Turns ``width`` integer sums of token ``m`` into outputs."""

        def spread(value: Any) -> Any:
            return value if width == 1 else T.broadcast(value, width)

        offset = T.int32(int(self.zero_point * self.factor))
        exact = total * spread(T.int32(self.factor)) - spread(operands.code_sums[m] * offset)
        scale = self.scale_of(operands.scale, row, width) * spread(operands.a_scales[m])
        if self.factor == 2:
            scale = scale * splat(0.5, scale)
        value = fma(T.cast(exact, str(scale.ty)), scale, self.bias_of(operands.bias, row, width))
        return EPILOGUES[self.epilogue](value)


@macro
def _accumulate(p, operands, acc, m, block, tokens, blocks):
    for k_block in range(p.matrix.packed_shape[1]):
        for field in T.unroll(p.matrix.fields):
            codes = registers((blocks * p.isa.vectors,), p.vector)
            for v in T.unroll(blocks * p.isa.vectors):
                codes[v] = p.codes(
                    operands.weight[
                        block + v // p.isa.vectors, k_block, T.ramp((v % p.isa.vectors) * p.isa.lanes, 1, p.isa.lanes)
                    ],
                    field,
                )
            for r in T.unroll(tokens):
                for v in T.unroll(blocks * p.isa.vectors):
                    acc[r * blocks * p.isa.vectors + v] = p.isa.dot4(
                        acc[r * blocks * p.isa.vectors + v],
                        codes[v],
                        T.broadcast(operands.words[m + r, k_block * p.matrix.fields + field], p.isa.lanes),
                        p.matrix.bits,
                    )


@macro
def _store_block(p, operands, acc, m, block, first):
    for v in T.unroll(p.isa.vectors):
        if p.first_row(block, v) + p.isa.lanes <= p.matrix.rows:
            operands.out[m, T.ramp(p.first_row(block, v), 1, p.isa.lanes)] = p.result(
                acc[first + v], operands, m, p.first_row(block, v), p.isa.lanes
            )
    if p.matrix.rows % p.isa.lanes > 0 and block == p.full_blocks:
        sums = registers((ROW_TILE,), "int32")
        for v in T.unroll(p.isa.vectors):
            sums[T.ramp(v * p.isa.lanes, 1, p.isa.lanes)] = acc[first + v]
        for last_row in range(p.matrix.rows // p.isa.lanes * p.isa.lanes, p.matrix.rows):
            operands.out[m, last_row] = p.result(sums[last_row - block * ROW_TILE], operands, m, last_row, 1)


@macro
def _tile(p, operands, m, block, tokens, blocks):
    acc = registers((tokens * blocks * p.isa.vectors,), p.vector)
    for a in T.unroll(tokens * blocks * p.isa.vectors):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    _accumulate(p, operands, acc, m, block, tokens, blocks)
    for r in T.unroll(tokens):
        for b in T.unroll(blocks):
            _store_block(p, operands, acc, m + r, block + b, (r * blocks + b) * p.isa.vectors)


@macro
def _all_tokens(p, operands, tokens, block, blocks):
    """Full tiles, then what is left in tiles of 4, 2 and 1."""
    for tile in range(tokens // p.isa.row_tile):
        _tile(p, operands, tile * p.isa.row_tile, block, p.isa.row_tile, blocks)
    if p.isa.row_tile > 4 and tokens % p.isa.row_tile >= 4:
        _tile(p, operands, tokens // p.isa.row_tile * p.isa.row_tile, block, 4, blocks)
    if tokens % 4 >= 2:
        _tile(p, operands, tokens // 4 * 4, block, 2, blocks)
    if tokens % 2 == 1:
        _tile(p, operands, tokens - 1, block, 1, blocks)


@macro
def _several_tokens(p, operands, tokens):
    for tile in T.parallel(p.matrix.packed_shape[0] // p.block_tile):
        _all_tokens(p, operands, tokens, tile * p.block_tile, p.block_tile)
    if p.matrix.packed_shape[0] % p.block_tile > 0:
        _all_tokens(p, operands, tokens, p.matrix.packed_shape[0] - 1, 1)


def _take_in(p: LowBitProduct, operands: Operands, acc: Any, block: Any, blocks: int, k_block: Any, step: int) -> None:
    """Emits the products of one packed word a row for one token; every slot of a vector has a sum of its own."""
    first_row_of = [(b, v) for b in range(blocks) for v in range(p.isa.vectors)]
    for field in range(p.matrix.fields):
        x = T.broadcast(operands.words[0, k_block * p.matrix.fields + field], p.isa.lanes)
        for index, (b, v) in enumerate(first_row_of):
            word = operands.weight[block + b, k_block, T.ramp(v * p.isa.lanes, 1, p.isa.lanes)]
            place = (index * p.steps + step) * p.slots + field % p.slots
            T.buffer_store(acc, p.isa.dot4(acc[place], p.slot_codes(word, field), x, p.matrix.bits), [place])


def _slot_sums(p: LowBitProduct, acc: Any, sums: Any, blocks: int) -> None:
    """Emits the sum over slots and steps, each slot's factor taken out: an exact division by a power of two."""
    for index in range(blocks * p.isa.vectors):
        total: Any = None
        for place in range(p.steps * p.slots):
            part = acc[index * p.steps * p.slots + place]
            shift = place % p.slots * p.matrix.bits
            part = T.shift_right(part, T.broadcast(T.int32(shift), p.isa.lanes)) if shift else part
            total = part if total is None else total + part
        T.buffer_store(sums, total, [index])


@macro
def _single_token_tile(p, operands, block, blocks):
    acc = registers((blocks * p.isa.vectors * p.steps * p.slots,), p.vector)
    sums = registers((blocks * p.isa.vectors,), p.vector)
    for a in T.unroll(blocks * p.isa.vectors * p.steps * p.slots):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    for k in range(p.matrix.packed_shape[1] // p.steps):
        for step in T.unroll(p.steps):
            _take_in(p, operands, acc, block, blocks, k * p.steps + step, step)
    for k_block in range(p.matrix.packed_shape[1] // p.steps * p.steps, p.matrix.packed_shape[1]):
        _take_in(p, operands, acc, block, blocks, k_block, 0)
    _slot_sums(p, acc, sums, blocks)
    for b in T.unroll(blocks):
        _store_block(p, operands, sums, 0, block + b, b * p.isa.vectors)


@macro
def _single_token(p, operands):
    for tile in T.parallel(p.matrix.packed_shape[0] // p.single_token_blocks):
        _single_token_tile(p, operands, tile * p.single_token_blocks, p.single_token_blocks)
    if p.matrix.packed_shape[0] % p.single_token_blocks > 0:
        _single_token_tile(p, operands, p.matrix.packed_shape[0] - 1, 1)


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
    lead, tokens = leading_dimensions(rank)
    p = LowBitProduct(isa, matrix, has_bias, epilogue)
    words = padded_columns(matrix.columns) // 4

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
        weight = T.match_buffer(w, matrix.packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        bias = T.match_buffer(bias_, (matrix.rows if has_bias else 1,), "float32")
        y_buffer = T.match_buffer(y, (*lead, matrix.rows), "float32")
        with T.sblock("root"):
            q_words = T.decl_buffer((tokens, words), "int32", data=q_buffer.data)
            a_scales = T.decl_buffer((tokens,), "float32", data=a_buffer.data)
            code_sums = T.decl_buffer((tokens,), "int32", data=sum_buffer.data)
            out = T.decl_buffer((tokens, matrix.rows), "float32", data=y_buffer.data)
            if tokens == 1:
                _single_token(p, Operands(q_words, a_scales, code_sums, weight, scale, bias, out))
            else:
                _several_tokens(p, Operands(q_words, a_scales, code_sums, weight, scale, bias, out), tokens)

    return product


def check_accumulator(matrix: PackedMatrix, name: str) -> None:
    """Refuses a matrix whose sums could leave 32 bits.

    Raises:
        UnsupportedError: If ``columns`` is too large for the bit width.
    """
    doubled = 2 * matrix.columns * (2**matrix.bits - 1) * ACTIVATION_LEVELS
    in_place = -(-matrix.columns // matrix.fields) * 255 * ACTIVATION_LEVELS
    if max(doubled, in_place) >= 2**31:
        raise UnsupportedError(
            f"{name}: {matrix.columns} columns of {matrix.bits}-bit codes can overflow a 32-bit sum; "
            "split the layer or use fewer bits"
        )
