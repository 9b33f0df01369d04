"""What a kernel has to know about an instruction set.

Element-wise float work is written on 16-lane vectors everywhere: LLVM splits them into what the core
has, and since addition order and fused multiply-accumulates are spelled out, every core returns the same bits.
Only the 4-way integer dot product, its operands' signs and the tile sizes differ, and they are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tvm.script import tirx as T

from edgeq.errors import UsageError, nearest_name_hint
from edgeq.formats.low_bit import ACTIVATION_LEVELS

Expression = Any  # a TIR expression: TVM ships no types for them
MatrixProduct = Callable[[Expression, Expression, Expression], Expression]
DotProduct = Callable[[Expression, Expression, Expression, int], Expression]


@dataclasses.dataclass(frozen=True)
class NarrowSums:
    """Sums of products in 16 bits, widened before they could overflow: for instruction sets without a dot product.

    Attributes:
        token_tile: Tokens whose sums are held in registers at once.
        parts: Registers that stand for one register of 32-bit sums.
        vector: Type of a part.
        products: Products that one step adds to a lane.
        add: ``(parts, codes, activations)`` to the new parts.
        widen: ``(accumulator, parts)`` to the new accumulator.
    """

    token_tile: int
    parts: int
    vector: str
    products: int
    add: Callable[[Sequence[Expression], Expression, Expression], list[Expression]]
    widen: Callable[[Expression, Sequence[Expression]], Expression]

    @property
    def lanes(self) -> int:
        """16-bit sums of a part."""
        return int(self.vector.removeprefix("int16x"))

    def steps(self, bits: int) -> int:
        """How many steps fit into 16 bits."""
        return (2**15 - 1) // (self.products * (2**bits - 1) * ACTIVATION_LEVELS)


@dataclasses.dataclass(frozen=True)
class HalfSums:
    """Sums in 16 bits of the products of both halves of two registers: what a core without a dot product does best.

    Attributes:
        add: ``(sums, codes, activations, half)`` to the new sums, ``int16x8``: adds the products of the first eight
            bytes, or of the last eight. None for ``sums`` begins new ones.
        widen: ``(accumulator, sums)`` to the new accumulator, ``int32x4``: adds neighbouring sums.
        join: Two accumulators to the sums of their neighbours.
    """

    add: Callable[[Expression | None, Expression, Expression, int], Expression]
    widen: Callable[[Expression, Expression], Expression]
    join: Callable[[Expression, Expression], Expression]


@dataclasses.dataclass(frozen=True)
class Isa:
    """One instruction set as the kernels see it.

    Attributes:
        name: Name that target files use.
        lanes: 32-bit lanes of one integer register: 16, 8 or 4.
        row_tile: Tokens whose accumulators are held in registers at once.
        signed_codes: Whether 8-bit codes are turned into signed bytes (``code - 128``) before the dot product.
        dot4: ``(accumulator, codes, activations, bits)`` to the new accumulator, all ``lanes`` wide: adds, for
            each lane, the four products of its code bytes and its int8 activation bytes. ``bits`` says how large
            codes are, which may be less than they are stored in.
        largest_byte: Largest unsigned byte that ``dot4`` takes for a code of fewer than 8 bits.
        narrow: How codes of up to 4 bits are added up faster than with ``dot4``, or None.
        halves: How codes of several tokens are added up faster than with ``dot4``, or None.
        matrix_product: ``(accumulator, activations, codes)`` to the new accumulator, all 4 wide: adds the products
            of two tokens' 8 activations with two rows' 8 codes. None where there is no such instruction.
        multiply_pairs: ``(a, b)``, each of ``2 * lanes`` signed numbers of 16 bits, to the sums of the products of
            neighbours in 32 bits: how 8-bit codes are added up faster than with ``dot4``, or None.
        multiplies_tiles: Whether there are tiles, and an instruction that multiplies them.
        takes_lanes: Whether ``dot4`` takes one lane of a register, for all lanes, without a step before.
        rounds: Whether there is an instruction that rounds floats to integers.
        fuses: Whether there is one that multiplies and adds with one rounding.
        converts_halves: Whether there is one that converts floats of 16 bits.
    """

    name: str
    lanes: int
    row_tile: int
    signed_codes: bool
    dot4: DotProduct
    largest_byte: int
    narrow: NarrowSums | None = None
    halves: HalfSums | None = None
    matrix_product: MatrixProduct | None = None
    multiply_pairs: Callable[[Expression, Expression], Expression] | None = None
    multiplies_tiles: bool = False
    takes_lanes: bool = False
    rounds: bool = True
    fuses: bool = True
    converts_halves: bool = True

    @property
    def float_instructions(self) -> tuple[bool, ...]:
        """What kernels without integer matmuls depend on: equal for instruction sets that share them."""
        return self.rounds, self.fuses, self.converts_halves

    def fields_in_place(self, bits: int) -> int:
        """How many fields of a byte, counted from the lowest, ``dot4`` takes without a shift to the lowest place.

        A power of two, so that it divides the number of fields.
        """
        fields = 8 // bits
        while fields > 1 and (2**bits - 1) << ((fields - 1) * bits) > self.largest_byte:
            fields //= 2
        return fields

    @property
    def float_panels(self) -> int:
        """Vectors of 16 floats that a tile of several tokens holds for each."""
        return 2 if self.lanes == 16 else 1

    @property
    def prefetches_weights(self) -> bool:
        """Whether a tile of several tokens asks for the weights of the next one while it multiplies.

        The processor's own prefetch starts anew with every block, and the first tile of a block waits for memory. On
        ARM nothing could be timed, and an inner loop has no instruction to spare.
        """
        return self.lanes >= 8

    @property
    def vectors(self) -> int:
        """Registers that hold one column of a 16-row weight block."""
        return 16 // self.lanes


def _intrinsic(name: str, dtype: str, *operands: Expression) -> Expression:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), *operands, dtype=dtype)


def _dot4_avx512_vnni(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    del bits  # vpdpbusd takes any unsigned byte
    return _intrinsic(
        "llvm.x86.avx512.vpdpbusd.512",
        "int32x16",
        acc,
        T.reinterpret(codes, dtype="int8x64"),
        T.reinterpret(x, dtype="int8x64"),
    )


def _dot4_avx_vnni(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    del bits  # as with 512 bits
    return _intrinsic(
        "llvm.x86.avx512.vpdpbusd.256",  # one intrinsic for both encodings; the features choose
        "int32x8",
        acc,
        T.reinterpret(codes, dtype="int8x32"),
        T.reinterpret(x, dtype="int8x32"),
    )


def _dot4_avx2(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """``pmaddubsw`` adds two products of an unsigned byte and a signed one into 16 bits, with saturation.

    Codes are the unsigned bytes. Up to 7 bits the sum is at most 127 * 128 * 2 = 32512, which fits. Eight-bit codes
    arrive signed, and the product is taken as ``|x| * (sign(x) * code)``: at most 127 * 127 * 2, since code 0 is
    unused.
    """
    codes, x = T.reinterpret(codes, dtype="int8x32"), T.reinterpret(x, dtype="int8x32")
    if bits == 8:
        codes = _intrinsic("llvm.x86.avx2.psign.b", "int8x32", codes, x)
        x, codes = codes, _intrinsic("llvm.abs", "int8x32", x, T.bool(False))
    pairs = _intrinsic("llvm.x86.avx2.pmadd.ub.sw", "int16x16", codes, x)
    return acc + _intrinsic("llvm.x86.avx2.pmadd.wd", "int32x8", pairs, T.broadcast(T.int16(1), 16))


def _dot4_sse41(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """As with AVX2, on 128 bits."""
    codes, x = T.reinterpret(codes, dtype="int8x16"), T.reinterpret(x, dtype="int8x16")
    if bits == 8:
        codes = _intrinsic("llvm.x86.ssse3.psign.b.128", "int8x16", codes, x)
        x, codes = codes, _intrinsic("llvm.abs", "int8x16", x, T.bool(False))
    return _widen_sse41(acc, [_intrinsic("llvm.x86.ssse3.pmadd.ub.sw.128", "int16x8", codes, x)])


def _dot4_avx512bw(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """As with AVX2, but there is no instruction that takes the sign of ``x`` to the code."""
    codes, x = T.reinterpret(codes, dtype="int8x64"), T.reinterpret(x, dtype="int8x64")
    if bits == 8:
        zero = T.broadcast(T.int8(0), 64)
        codes = T.Select(x < zero, zero - codes, codes)
        x, codes = codes, _intrinsic("llvm.abs", "int8x64", x, T.bool(False))
    pairs = _intrinsic("llvm.x86.avx512.pmaddubs.w.512", "int16x32", codes, x)
    return _widen_avx512bw(acc, [pairs])


def _dot4_neon_dotprod(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    del bits  # codes are signed here, and narrower ones are small
    return _intrinsic(
        "llvm.aarch64.neon.sdot",
        "int32x4",
        acc,
        T.reinterpret(codes, dtype="int8x16"),
        T.reinterpret(x, dtype="int8x16"),
    )


def _matrix_product_i8mm(acc: Expression, activations: Expression, codes: Expression) -> Expression:
    return _intrinsic(
        "llvm.aarch64.neon.smmla",
        "int32x4",
        acc,
        T.reinterpret(activations, dtype="int8x16"),
        T.reinterpret(codes, dtype="int8x16"),
    )


def _dot4_neon(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """Two widening products, one pairwise add (at most 2 * 127 * 127 in 16 bits), one accumulating one."""
    del bits
    codes, x = T.reinterpret(codes, dtype="int8x16"), T.reinterpret(x, dtype="int8x16")
    low = _intrinsic(
        "llvm.aarch64.neon.smull", "int16x8", T.vectorlow("int8x8", codes), T.vectorlow("int8x8", x)
    )
    high = _intrinsic(
        "llvm.aarch64.neon.smull", "int16x8", T.vectorhigh("int8x8", codes), T.vectorhigh("int8x8", x)
    )
    pairs = _intrinsic("llvm.aarch64.neon.addp", "int16x8", low, high)
    return acc + _intrinsic("llvm.aarch64.neon.saddlp", "int32x4", pairs)


def _narrow_add_avx2(parts: Sequence[Expression], codes: Expression, x: Expression) -> list[Expression]:
    codes, x = T.reinterpret(codes, dtype="int8x32"), T.reinterpret(x, dtype="int8x32")
    return [parts[0] + _intrinsic("llvm.x86.avx2.pmadd.ub.sw", "int16x16", codes, x)]


def _multiply_pairs_avx2(a: Expression, b: Expression) -> Expression:
    return _intrinsic("llvm.x86.avx2.pmadd.wd", "int32x8", a, b)


def _widen_avx2(acc: Expression, parts: Sequence[Expression]) -> Expression:
    return acc + _intrinsic("llvm.x86.avx2.pmadd.wd", "int32x8", parts[0], T.broadcast(T.int16(1), 16))


def _narrow_add_sse41(parts: Sequence[Expression], codes: Expression, x: Expression) -> list[Expression]:
    codes, x = T.reinterpret(codes, dtype="int8x16"), T.reinterpret(x, dtype="int8x16")
    return [parts[0] + _intrinsic("llvm.x86.ssse3.pmadd.ub.sw.128", "int16x8", codes, x)]


def _widen_sse41(acc: Expression, parts: Sequence[Expression]) -> Expression:
    return acc + _intrinsic("llvm.x86.sse2.pmadd.wd", "int32x4", parts[0], T.broadcast(T.int16(1), 8))


def _narrow_add_avx512bw(parts: Sequence[Expression], codes: Expression, x: Expression) -> list[Expression]:
    codes, x = T.reinterpret(codes, dtype="int8x64"), T.reinterpret(x, dtype="int8x64")
    return [parts[0] + _intrinsic("llvm.x86.avx512.pmaddubs.w.512", "int16x32", codes, x)]


def _widen_avx512bw(acc: Expression, parts: Sequence[Expression]) -> Expression:
    return acc + _intrinsic("llvm.x86.avx512.pmaddw.d.512", "int32x16", parts[0], T.broadcast(T.int16(1), 32))


def _add_halves_neon(sums: Expression | None, codes: Expression, x: Expression, half: int) -> Expression:
    eight = T.vectorhigh if half else T.vectorlow
    bytes_ = [eight("int8x8", T.reinterpret(operand, dtype="int8x16")) for operand in (codes, x)]
    products = _intrinsic("llvm.aarch64.neon.smull", "int16x8", *bytes_)
    return products if sums is None else sums + products


def _widen_halves_neon(acc: Expression, sums: Expression) -> Expression:
    return acc + _intrinsic("llvm.aarch64.neon.saddlp", "int32x4", sums)


def _join_neon(a: Expression, b: Expression) -> Expression:
    return _intrinsic("llvm.aarch64.neon.addp", "int32x4", a, b)


def _products_armv7(codes: Expression, x: Expression) -> list[Expression]:
    """The products of both halves of two registers, in 16 bits."""
    codes, x = T.reinterpret(codes, dtype="int8x16"), T.reinterpret(x, dtype="int8x16")
    return [
        _intrinsic("llvm.arm.neon.vmulls", "int16x8", half("int8x8", codes), half("int8x8", x))
        for half in (T.vectorlow, T.vectorhigh)
    ]


def _add_pairs_armv7(registers: Sequence[Expression], dtype: str, pair: str) -> Expression:
    """Adds neighbouring lanes of two registers into one; ARMv7 does so on half registers only."""
    halves = [
        _intrinsic("llvm.arm.neon.vpadd", pair, T.vectorlow(pair, r), T.vectorhigh(pair, r)) for r in registers
    ]
    return T.vectorcombine(dtype, *halves)


def _dot4_armv7(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """As on newer cores: two widening products, pairs in 16 bits (at most 2 * 127 * 127), pairs of these in 32."""
    del bits
    pairs = _add_pairs_armv7(_products_armv7(codes, x), "int16x8", "int16x4")
    return _intrinsic("llvm.arm.neon.vpadals", "int32x4", acc, pairs)


def _narrow_add_armv7(parts: Sequence[Expression], codes: Expression, x: Expression) -> list[Expression]:
    return [part + product for part, product in zip(parts, _products_armv7(codes, x), strict=True)]


def _widen_armv7(acc: Expression, parts: Sequence[Expression]) -> Expression:
    pairs = [_intrinsic("llvm.arm.neon.vpaddls", "int32x4", part) for part in parts]
    return acc + _add_pairs_armv7(pairs, "int32x4", "int32x2")


def _dot4_portable(acc: Expression, codes: Expression, x: Expression, bits: int) -> Expression:
    """In lanes of 32 bits, so that a processor without vectors has one integer for each."""
    del bits

    def byte(word: Expression, number: int) -> Expression:
        raised = T.shift_left(word, T.broadcast(T.int32(24 - 8 * number), 4)) if number < 3 else word
        return T.shift_right(raised, T.broadcast(T.int32(24), 4))

    for number in range(4):
        acc = acc + byte(codes, number) * byte(x, number)
    return acc


_NARROW_SSE41 = NarrowSums(2, 1, "int16x8", 2, _narrow_add_sse41, _widen_sse41)  # there are 16 registers
_NARROW_AVX2 = NarrowSums(4, 1, "int16x16", 2, _narrow_add_avx2, _widen_avx2)
_NARROW_BW = NarrowSums(8, 1, "int16x32", 2, _narrow_add_avx512bw, _widen_avx512bw)
_NARROW_ARMV7 = NarrowSums(1, 2, "int16x8", 1, _narrow_add_armv7, _widen_armv7)  # there are 16 registers
_HALVES_NEON = HalfSums(_add_halves_neon, _widen_halves_neon, _join_neon)

ISAS = {
    isa.name: isa
    for isa in (
        Isa("amx_int8", 16, 8, False, _dot4_avx512_vnni, largest_byte=255, multiplies_tiles=True),
        Isa("avx512_vnni", lanes=16, row_tile=8, signed_codes=False, dot4=_dot4_avx512_vnni, largest_byte=255),
        Isa("avx512bw", 16, row_tile=8, signed_codes=True, dot4=_dot4_avx512bw, largest_byte=127, narrow=_NARROW_BW),
        Isa("avx_vnni", lanes=8, row_tile=4, signed_codes=False, dot4=_dot4_avx_vnni, largest_byte=255),
        Isa(
            "avx2", lanes=8, row_tile=4, signed_codes=True, dot4=_dot4_avx2, largest_byte=127, narrow=_NARROW_AVX2,
            multiply_pairs=_multiply_pairs_avx2,
        ),
        Isa(
            "sse41", lanes=4, row_tile=2, signed_codes=True, dot4=_dot4_sse41, largest_byte=127, narrow=_NARROW_SSE41,
            fuses=False, converts_halves=False,
        ),
        Isa(
            "portable", lanes=4, row_tile=2, signed_codes=True, dot4=_dot4_portable, largest_byte=127, rounds=False,
            converts_halves=False,
        ),
        Isa("neon_dotprod", 4, 4, True, _dot4_neon_dotprod, largest_byte=127, takes_lanes=True),
        Isa(
            "neon_i8mm", 4, 4, True, _dot4_neon_dotprod, largest_byte=127, takes_lanes=True,
            matrix_product=_matrix_product_i8mm,
        ),
        Isa("neon", lanes=4, row_tile=4, signed_codes=True, dot4=_dot4_neon, largest_byte=127, halves=_HALVES_NEON),
        Isa("neon_armv7", 4, 2, True, _dot4_armv7, largest_byte=127, narrow=_NARROW_ARMV7, rounds=False),
    )
}


def isa_named(name: str) -> Isa:
    """Returns the instruction set called ``name``.

    Raises:
        UsageError: If there is none.
    """
    if name not in ISAS:
        raise UsageError(
            f"instruction set {name!r} is not one of {', '.join(ISAS)}{nearest_name_hint(name, list(ISAS))}"
        )
    return ISAS[name]
