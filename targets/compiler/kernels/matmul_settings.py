"""What the kernels of a low-bit matmul share: sizes of tiles, codes of packed words, and the way back to float."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from tvm.script import tirx as T

from edgeq.formats.low_bit import ACTIVATION_LEVELS, PackedMatrix
from edgeq.formats.packing import ROW_TILE
from edgeq.targets.compiler.isa import HalfSums, Isa, NarrowSums
from edgeq.targets.compiler.kernels.numerics import fma, gelu, gelu_tanh, relu, silu, splat, tanh
from edgeq.targets.compiler.kernels.shapes import row_parameter

Epilogue = Literal["none", "gelu", "gelu_tanh", "relu", "silu", "tanh"]
EPILOGUES = {
    "none": lambda y: y,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "tanh": tanh,
}

INDEPENDENT_SUMS = 8
"""Sums of a tile of few tokens: enough to hide the latency of the dot product."""

LANE_TOKENS = 8
"""Tokens of a tile where the dot product takes a lane of a register as its activations."""

PAIR_TOKENS = 8
"""Tokens of a tile where columns are multiplied in pairs."""
MOST_ADDED_BY_A_PAIR = (ACTIVATION_LEVELS + 255) ** 2 + ACTIVATION_LEVELS**2 + 255**2 + 2 * 128 * ACTIVATION_LEVELS
"""What two columns add to a sum at most, together with what is subtracted from it."""
MOST_PAIRED = 2 * (2**31 - 1) // MOST_ADDED_BY_A_PAIR
"""Columns whose sums stay in 32 bits at every step."""


class Operands(NamedTuple):
    """Buffers of one matmul, activations and output seen as rows."""

    words: Any
    a_scales: Any
    code_sums: Any
    weight: Any
    scale: Any
    bias: Any
    out: Any
    added: Any = None


@dataclasses.dataclass(frozen=True)
class MatmulSettings:
    """What is fixed when the kernel is built.

    ``sum (code - zero_point) * q`` is ``factor * total - offset * sum q`` in integers: a half-integer zero point is
    doubled, and the scale takes the factor back, exactly.

    Attributes:
        isa: Instruction set to compile for.
        matrix: The packed weight.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to a result while it is in registers.
        seven_bits: Whether all codes of an 8-bit matrix are below 128. They are then signed and unsigned bytes at once,
            and ``pmaddubsw`` takes them as they are. A larger code would give wrong sums, and nothing worse: no address
            depends on a code.
        centred: Whether half of all codes' number is taken from a code before it is multiplied, so that sums stay
            within 16 bits for longest.
    """

    isa: Isa
    matrix: PackedMatrix
    has_bias: bool
    epilogue: Epilogue
    seven_bits: bool = False
    centred: bool = False

    @property
    def product_bits(self) -> int:
        """Bits of the codes that the dot product sees."""
        return 7 if self.seven_bits else self.matrix.bits

    @property
    def flips_codes(self) -> bool:
        """Whether 8-bit codes become signed bytes."""
        return self.isa.signed_codes and self.product_bits == 8

    @property
    def centre(self) -> int:
        """What is taken from a code before it is multiplied."""
        if self.centred:
            return 2 ** (self.product_bits - 1)
        return 128 if self.flips_codes else 0

    @property
    def zero_point(self) -> float:
        """Zero point of the codes that the dot product sees."""
        return self.matrix.zero_point - self.centre

    @property
    def factor(self) -> int:
        """2 for a half-integer zero point, else 1."""
        return 1 if self.zero_point == int(self.zero_point) else 2

    @property
    def offset(self) -> Any:
        """``zero_point * factor``, an integer."""
        return T.int32(int(self.zero_point * self.factor))

    @property
    def block_tile(self) -> int:
        """Blocks of a tile of several tokens."""
        return 2 if self.isa.lanes == ROW_TILE else 1

    @property
    def narrow(self) -> NarrowSums:
        """How 16-bit sums are made; only asked for where ``narrow_words`` is not 0."""
        if self.isa.narrow is None:
            raise ValueError(f"{self.isa.name} has no 16-bit sums")
        return self.isa.narrow

    @property
    def pairs(self) -> bool:
        """Whether several tokens are multiplied in pairs of columns."""
        return self.isa.multiply_pairs is not None and self.product_bits == 8 and self.matrix.columns <= MOST_PAIRED

    @property
    def tiles(self) -> bool:
        """Whether several tokens are multiplied in tiles."""
        return self.isa.multiplies_tiles

    @property
    def halves(self) -> HalfSums:
        """How both halves of registers are multiplied; only asked for where the instruction set has it."""
        if self.isa.halves is None:
            raise ValueError(f"{self.isa.name} does not multiply halves")
        return self.isa.halves

    def multiply_pairs(self, a: Any, b: Any) -> Any:
        """Sums of the products of neighbours; only asked for where ``pairs`` is true."""
        if self.isa.multiply_pairs is None:
            raise ValueError(f"{self.isa.name} does not multiply pairs")
        return self.isa.multiply_pairs(a, b)

    def first_pair_sum(self, of_token: Any, of_rows: Any) -> Any:
        """What the sums of a token with a register of rows begin with."""
        return T.broadcast(T.int32(0) - of_token, self.isa.lanes) - of_rows

    @property
    def narrow_words(self) -> int:
        """Packed words of a row that are added up in 16 bits before they are widened; 0 for products in 32 bits."""
        if self.isa.narrow is None or self.matrix.bits == 8:
            return 0
        return self.isa.narrow.steps(self.matrix.bits) // self.matrix.fields

    @property
    def token_tile(self) -> int:
        """Tokens of a full tile."""
        if self.isa.takes_lanes:
            return LANE_TOKENS
        if self.pairs:
            return PAIR_TOKENS
        return self.narrow.token_tile if self.narrow_words > 0 else self.isa.row_tile

    @property
    def slots(self) -> int:
        """Fields of a word that few tokens take in where they stand, without a shift, each into a sum of its own."""
        return self.isa.fields_in_place(self.matrix.bits)

    @property
    def narrow_words_in_place(self) -> int:
        """Packed words of a row that one token adds up in 16 bits where the fields stand; 0 for products in 32 bits.

        Only where a register of products is a register of sums: on ARM nothing could be timed.
        """
        if self.narrow_words == 0 or self.narrow.parts > 1:
            return 0
        field = self.narrow.products * (2**self.matrix.bits - 1) * ACTIVATION_LEVELS
        return (2**15 - 1) // (field * 2 ** ((self.slots - 1) * self.matrix.bits) * self.matrix.fields // self.slots)

    def steps(self, tokens: int) -> int:
        """Words of a row that few tokens take in at once, each into sums of their own."""
        return max(1, INDEPENDENT_SUMS // (tokens * self.isa.vectors * self.slots))

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

        exact = total * spread(T.int32(self.factor)) - spread(operands.code_sums[m] * self.offset)
        scale = self.scale_of(operands.scale, row, width) * spread(operands.a_scales[m])
        if self.factor == 2:
            scale = scale * splat(0.5, scale)
        value = fma(T.cast(exact, str(scale.ty)), scale, self.bias_of(operands.bias, row, width))
        value = EPILOGUES[self.epilogue](value)
        if operands.added is None:
            return value
        return value + operands.added[m, row if width == 1 else T.ramp(row, 1, width)]
