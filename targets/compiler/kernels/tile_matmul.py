"""A low-bit matmul in tiles of 16 tokens and 16 rows, for several tokens."""

from __future__ import annotations

from tvm.script import tirx as T

from edgeq.formats.packing import ROW_TILE
from edgeq.targets.compiler.kernels.matmul_output import store_block
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.tile_sums import (
    PAIR,
    SUM_WORDS,
    TILE_BLOCKS,
    TILE_TOKENS,
    TILE_WORDS,
    begin_tiles,
    end_tiles,
    lines_between,
    needs_unpacking,
    prefetch_line,
    rows_between,
    take_in_columns,
    take_in_tokens,
    tile_memory,
    tiles_of_columns,
    unpack_tiles,
)


@macro
def _store_row(p, operands, sums, first, m, block, blocks, adds):
    """Stores the sums of a token; those of the odd tiles of columns are added if there are such."""
    for b in T.unroll(blocks):
        total = registers((1,), p.vector)
        total[0] = sums[T.ramp(first + b * (2 * TILE_WORDS), 1, ROW_TILE)]
        if adds:
            total[0] = total[0] + sums[T.ramp(first + b * (2 * TILE_WORDS) + TILE_WORDS, 1, ROW_TILE)]
        store_block(p, operands, total, m, block + b, 0)


@macro
def _pair_of_tiles(p, operands, tiles, sums, lines, pair, tokens, block, blocks):
    """Sums of 32 tokens, of fewer in the last pair; between their products, the sums of the pair before are stored."""
    begin_tiles(TILE_TOKENS, T.min(tokens - pair * PAIR - TILE_TOKENS, TILE_TOKENS))
    for k_tile in range(tiles_of_columns(p)):
        for line in range(lines[0]):
            prefetch_line(operands, block, blocks, (pair * tiles_of_columns(p) + k_tile) * lines[0] + line)
        take_in_tokens(p, operands, tiles, pair * PAIR, block, blocks, k_tile)
        if pair > 0:
            for r in range(T.min(k_tile * rows_between(p), PAIR), T.min((k_tile + 1) * rows_between(p), PAIR)):
                _store_row(
                    p, operands, sums, (1 - pair % 2) * SUM_WORDS + r * ROW_TILE, (pair - 1) * PAIR + r, block, blocks,
                    False,
                )  # fmt: skip
    end_tiles(sums, pair % 2 * SUM_WORDS, blocks)


@macro
def _single_tile(p, operands, tiles, sums, m, tokens, block, blocks):
    """As :func:`_pair_of_tiles` for up to 16 tokens, even and odd tiles of columns apart."""
    begin_tiles(tokens, tokens)
    for pair in range(tiles_of_columns(p) // 2):
        take_in_columns(p, operands, tiles, m, block, blocks, pair * 2, 2)
    if tiles_of_columns(p) % 2 > 0:
        take_in_columns(p, operands, tiles, m, block, blocks, tiles_of_columns(p) - 1, 1)
    end_tiles(sums, 0, blocks)
    for r in range(tokens):
        _store_row(p, operands, sums, r * ROW_TILE, m + r, block, blocks, True)


@macro
def _last_pair(p, operands, sums, pair, tokens, block, blocks):
    """Stores the sums of the last pair of tiles, whose second one may have fewer tokens."""
    for m in range(pair * PAIR, T.min((pair + 1) * PAIR, tokens)):
        _store_row(
            p, operands, sums, pair % 2 * SUM_WORDS + m % PAIR * ROW_TILE, m, block, blocks, False,
        )  # fmt: skip


@macro
def _blocks_in_tiles(p, operands, tokens, block, blocks):
    """Pairs of tiles, of which the last one may have fewer tokens; then up to 16 tokens that are left."""
    sums = registers((2 * SUM_WORDS,), "int32")
    tiles = tile_memory(p, operands)
    lines = registers((1,), "int64")
    lines[0] = lines_between(p, tokens)
    if needs_unpacking(p):
        unpack_tiles(p, operands, tiles, block, blocks)
    for pair in range((tokens + TILE_TOKENS - 1) // PAIR):
        _pair_of_tiles(p, operands, tiles, sums, lines, pair, tokens, block, blocks)
    if tokens > TILE_TOKENS:
        _last_pair(p, operands, sums, (tokens + TILE_TOKENS - 1) // PAIR - 1, tokens, block, blocks)
    if (tokens + TILE_TOKENS - 1) % PAIR >= TILE_TOKENS:
        _single_tile(p, operands, tiles, sums, tokens // PAIR * PAIR, tokens % PAIR, block, blocks)


@macro
def matmul_in_tiles(p, operands, tokens):
    """The matmul of any number of tokens."""
    for group in T.parallel(p.matrix.packed_shape[0] // TILE_BLOCKS):
        _blocks_in_tiles(p, operands, tokens, group * TILE_BLOCKS, TILE_BLOCKS)
    if p.matrix.packed_shape[0] % TILE_BLOCKS > 0:
        _blocks_in_tiles(p, operands, tokens, p.matrix.packed_shape[0] - 1, 1)
