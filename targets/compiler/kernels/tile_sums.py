"""Sums of a low-bit matmul in tiles: an instruction that multiplies 16 x 64 by 64 x 16 bytes (``tdpbsud`` of AMX).

A tile of activations is 16 tokens of 64 columns, as they stand; a tile of codes is 64 columns of a block of 16 rows,
which 8-bit codes are in memory. Narrower codes are unpacked into tiles once for all tokens. Four sums are made at once,
since one takes long to come out: those of two tiles of tokens with two blocks, or those of one tile of tokens with the
even and with the odd tiles of columns.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgeq.formats.packing import ROW_TILE
from edgeq.targets.compiler.kernels.matmul_settings import MatmulSettings, Operands
from edgeq.targets.compiler.kernels.numerics import prefetch, registers
from edgeq.targets.compiler.kernels.script import macro

TILE_TOKENS = 16
"""Tokens of a tile."""
PAIR = 2 * TILE_TOKENS
"""Tokens of two tiles, which are multiplied at once."""
TILE_BLOCKS = 2
"""Blocks that are multiplied with a tile of tokens while it is there."""
TILE_COLUMNS = 64
"""Columns of a tile of activations."""
TILE_WORDS = 256
"""32-bit words of a tile."""
SUM_WORDS = 2 * TILE_BLOCKS * TILE_WORDS
"""32-bit words of all sums."""

_ROW_WORDS = 16
_ROW_BYTES = TILE_COLUMNS
_ACTIVATIONS, _CODES = 4, 6
"""The first of two registers for each; those of sums are 0 to 3."""


def tiles_of_columns(p: MatmulSettings) -> Any:
    """Tiles that the codes of a block fill, the last one perhaps in part."""
    return -(-p.matrix.packed_shape[1] * p.matrix.fields // _ROW_WORDS)


def rows_between(p: MatmulSettings) -> Any:
    """Tokens whose sums are stored for each tile of columns, so that those of 32 are stored at the end."""
    return -(-PAIR // tiles_of_columns(p))


def needs_unpacking(p: MatmulSettings) -> bool:
    """Whether codes do not stand in memory as tiles."""
    return bool(p.matrix.fields > 1 or p.matrix.packed_shape[1] % _ROW_WORDS > 0)


def tile_memory(p: MatmulSettings, operands: Operands) -> Any:
    """Allocates memory for unpacked tiles of some blocks, or returns the weight where it is made of tiles."""
    if not needs_unpacking(p):
        return operands.weight
    return T.alloc_buffer((TILE_BLOCKS * tiles_of_columns(p) * TILE_WORDS,), "int32")


def _emit(name: str, *arguments: Any) -> None:
    intrinsic = T.llvm_lookup_intrinsic_id(f"llvm.x86.{name}")
    T.evaluate(T.call_llvm_intrin(intrinsic, *arguments, dtype="void"))


@macro
def begin_tiles(first, second):
    """Empties all tiles, and gives those of two tiles of tokens so many rows, 1 to 16."""
    sizes = registers((_ROW_WORDS,), "int32")
    for word in T.unroll(_ROW_WORDS):
        sizes[word] = 0
    sizes[0] = 1  # the only palette
    for word in T.unroll(4):
        sizes[4 + word] = _ROW_BYTES * 0x10001
    sizes[12] = T.Cast("int32", first) * 0x101 + T.Cast("int32", second) * 0x1010000
    sizes[13] = T.Cast("int32", first) + T.Cast("int32", second) * 0x100 + ROW_TILE * 0x1010000
    _emit("ldtilecfg", T.address_of(sizes[0]))


def _unpack(p: MatmulSettings, operands: Operands, tiles: Any, block: Any, b: int, k_tile: Any, words: int) -> None:
    """Emits the unpacking of a tile, which has ``words`` words of every row."""
    fields = p.matrix.fields
    for row in range(_ROW_WORDS):
        place = ((b * tiles_of_columns(p) + k_tile) * _ROW_WORDS + row) * ROW_TILE
        codes = T.broadcast(T.int32(0), ROW_TILE)
        if row < words * fields:
            word = operands.weight[block + b, k_tile * (_ROW_WORDS // fields) + row // fields, T.ramp(0, 1, ROW_TILE)]
            codes = p.codes(word, row % fields)
        T.buffer_store(tiles, codes, [T.ramp(place, 1, ROW_TILE)])


@macro
def unpack_tiles(p, operands, tiles, block, blocks):
    """Leaves the codes of some blocks in ``tiles``."""
    for b in T.unroll(blocks):
        for k_tile in range(p.matrix.packed_shape[1] // (_ROW_WORDS // p.matrix.fields)):
            _unpack(p, operands, tiles, block, b, k_tile, _ROW_WORDS // p.matrix.fields)
        if p.matrix.packed_shape[1] % (_ROW_WORDS // p.matrix.fields) > 0:
            _unpack(
                p, operands, tiles, block, b, tiles_of_columns(p) - 1,
                p.matrix.packed_shape[1] % (_ROW_WORDS // p.matrix.fields),
            )  # fmt: skip


def _load(operands: Operands, half: int, m: Any, k_tile: Any) -> None:
    """Emits the reading of a tile of activations, which shall not drive the codes out of the first cache."""
    stride = operands.words.shape[1] * 4
    place = T.address_of(operands.words[m, k_tile * _ROW_WORDS])
    _emit("tileloaddt164", T.int8(_ACTIVATIONS + half), place, T.Cast("int64", stride))


def _load_codes(p: MatmulSettings, tiles: Any, block: Any, b: int, k_tile: Any) -> None:
    if needs_unpacking(p):
        place = tiles[(b * tiles_of_columns(p) + k_tile) * TILE_WORDS]
    else:
        place = tiles[block + b, k_tile * _ROW_WORDS, 0]
    _emit("tileloadd64", T.int8(_CODES + b), T.address_of(place), T.int64(_ROW_BYTES))


def multiply(half: int, b: int) -> None:
    """Emits the products of a tile of activations with one of codes, both of which are in registers."""
    _emit("tdpbsud", T.int8(TILE_BLOCKS * half + b), T.int8(_ACTIVATIONS + half), T.int8(_CODES + b))


def take_in_tokens(
    p: MatmulSettings, operands: Operands, tiles: Any, m: Any, block: Any, blocks: int, k_tile: Any
) -> None:
    """Emits the products of two tiles of tokens with a tile of columns of some blocks."""
    _load(operands, 0, m, k_tile)
    for b in range(blocks):
        _load_codes(p, tiles, block, b, k_tile)
    _load(operands, 1, m + TILE_TOKENS, k_tile)
    for half in range(2):
        for b in range(blocks):
            multiply(half, b)


def lines_between(p: MatmulSettings, tokens: Any) -> Any:
    """Lines of each of the next blocks that are asked for with a tile of columns: all pairs of tiles share them.

    The first pair alone would wait for memory, and leave it idle while the others multiply.
    """
    pairs = T.max((tokens + TILE_TOKENS - 1) // PAIR, 1)
    return -(-p.matrix.packed_shape[1] // (pairs * tiles_of_columns(p)))


def prefetch_line(operands: Operands, block: Any, blocks: int, line: Any) -> None:
    """Emits the wish to have a line of each of the next blocks in the second cache: the first one has no place."""
    for b in range(blocks):
        prefetch(operands.weight[block + blocks + b, line, 0], cache=2)


def take_in_columns(
    p: MatmulSettings, operands: Operands, tiles: Any, m: Any, block: Any, blocks: int, k_tile: Any, count: int
) -> None:
    """Emits the products of one tile of tokens with one or two tiles of columns of some blocks."""
    for half in range(count):
        _load(operands, half, m, k_tile + half)
        for b in range(blocks):
            _load_codes(p, tiles, block, b, k_tile + half)
            multiply(half, b)


def end_tiles(sums: Any, first: Any, blocks: int) -> None:
    """Emits the writing of all sums to ``sums`` from ``first`` on, ``[block, half, token, row]``."""
    for b in range(blocks):
        for half in range(2):
            place = sums.access_ptr("w", offset=first + (2 * b + half) * TILE_WORDS)
            _emit("tilestored64", T.int8(TILE_BLOCKS * half + b), place, T.int64(_ROW_BYTES))
    _emit("tilerelease")
