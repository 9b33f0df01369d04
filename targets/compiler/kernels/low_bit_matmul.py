"""The integer matmul of a low-bit linear layer: int8 activations times packed codes, then back to float.

A tile is ``tokens x blocks`` of output held in registers: for each packed word of a block, a shift and a mask give
four codes of 16 rows, and one 4-way dot product a token takes them in. Tiles of neighbouring blocks run in parallel.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from edgeq.errors import UnsupportedError
from edgeq.formats.low_bit import ACTIVATION_LEVELS, PackedMatrix
from edgeq.formats.packing import ROW_TILE
from edgeq.targets.compiler.isa import Isa
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.half_matmul import matmul_in_halves
from edgeq.targets.compiler.kernels.low_bit_sums import accumulate, sums_in_place
from edgeq.targets.compiler.kernels.matmul_output import store_block, store_rows
from edgeq.targets.compiler.kernels.matmul_settings import Epilogue, MatmulSettings, Operands
from edgeq.targets.compiler.kernels.matrix_matmul import matmul_in_pairs_of_tokens
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.pair_sums import first_pair_products, pair_products, row_words, widen_rows
from edgeq.targets.compiler.kernels.quantize_rows import padded_columns
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import leading_dimensions
from edgeq.targets.compiler.kernels.tile_matmul import matmul_in_tiles


@macro
def _tile(p, operands, m, block, tokens, blocks, ahead):
    acc = registers((tokens * blocks * p.isa.vectors,), p.vector)
    for a in T.unroll(tokens * blocks * p.isa.vectors):
        acc[a] = T.broadcast(T.int32(0), p.isa.lanes)
    accumulate(p, operands, acc, m, block, tokens, blocks, ahead)
    for r in T.unroll(tokens):
        for b in T.unroll(blocks):
            store_block(p, operands, acc, m + r, block + b, (r * blocks + b) * p.isa.vectors)


@macro
def _all_tokens(p, operands, tokens, block, blocks):
    """Full tiles, then what is left in tiles of 4, 2 and 1.

    The first tiles bring the weights of the next ones from memory, a block each; later ones ask for what is there.
    """
    for tile in range(tokens // p.token_tile):
        _tile(p, operands, tile * p.token_tile, block, p.token_tile, blocks, block + blocks + tile % blocks)
    if p.token_tile > 4 and tokens % p.token_tile >= 4:
        _tile(p, operands, tokens // p.token_tile * p.token_tile, block, 4, blocks, block + blocks)
    if p.token_tile > 2 and tokens % 4 >= 2:
        _tile(p, operands, tokens // 4 * 4, block, 2, blocks, block + blocks)
    if p.token_tile > 1 and tokens % 2 == 1:
        _tile(p, operands, tokens - 1, block, 1, blocks, block + blocks)


@macro
def _several_tokens(p, operands, tokens):
    for tile in T.parallel(p.matrix.packed_shape[0] // p.block_tile):
        _all_tokens(p, operands, tokens, tile * p.block_tile, p.block_tile)
    if p.matrix.packed_shape[0] % p.block_tile > 0:
        _all_tokens(p, operands, tokens, p.matrix.packed_shape[0] - 1, 1)


@macro
def _tile_in_place(p, operands, m, block, tokens):
    sums = registers((tokens * p.isa.vectors,), p.vector)
    sums_in_place(p, operands, sums, m, block, tokens)
    for r in T.unroll(tokens):
        store_block(p, operands, sums, m + r, block, r * p.isa.vectors)


@macro
def _few_tokens(p, operands, tokens):
    """As for one token, reading the weights from memory takes longest: one block at a time makes one stream."""
    for block in T.parallel(p.matrix.packed_shape[0]):
        if tokens == p.token_tile:
            _tile(p, operands, 0, block, p.token_tile, 1, block + 1)
        else:
            if tokens >= 4:
                _tile_in_place(p, operands, 0, block, 4)
            if tokens % 4 >= 2:
                _tile_in_place(p, operands, tokens // 4 * 4, block, 2)
            if tokens % 2 == 1:
                _tile_in_place(p, operands, tokens - 1, block, 1)


@macro
def _single_token(p, operands):
    for block in T.parallel(p.matrix.packed_shape[0]):
        _tile_in_place(p, operands, 0, block, 1)


@macro
def _first_pair_tile(p, operands, widened, token_sums, row_sums, block):
    for v in range(p.isa.vectors):
        acc = registers((p.token_tile,), p.vector)
        first_pair_products(p, operands, widened, token_sums, row_sums, acc, 0, block, v, p.token_tile)
        store_rows(p, operands, acc, 0, block, v, p.token_tile)


@macro
def _pair_tile(p, operands, widened, token_sums, row_sums, m, block, tokens):
    """A register of rows at a time, so that all sums of a tile are in registers."""
    for v in range(p.isa.vectors):
        acc = registers((tokens,), p.vector)
        pair_products(p, operands, widened, token_sums, row_sums, acc, m, block, v, tokens)
        store_rows(p, operands, acc, m, block, v, tokens)


@macro
def _tokens_in_pairs(p, operands, tokens):
    """Tiles of eight tokens and of four; the last ones, one by one, need nothing that is made for tiles."""
    widened = T.alloc_buffer((tokens * row_words(operands),), "int32")
    token_sums = T.alloc_buffer((tokens,), "int32")
    widen_rows(p, operands, widened, token_sums, tokens)
    for block in T.parallel(p.matrix.packed_shape[0]):
        row_sums = registers((ROW_TILE,), "int32")
        _first_pair_tile(p, operands, widened, token_sums, row_sums, block)
        for tile in range(tokens // p.token_tile - 1):
            _pair_tile(p, operands, widened, token_sums, row_sums, (tile + 1) * p.token_tile, block, p.token_tile)
        if tokens % p.token_tile >= 4:
            _pair_tile(p, operands, widened, token_sums, row_sums, tokens // p.token_tile * p.token_tile, block, 4)
        for r in range(tokens % 4):
            _tile_in_place(p, operands, tokens // 4 * 4 + r, block, 1)


@macro
def _one_by_one(p, operands, tokens):
    for block in T.parallel(p.matrix.packed_shape[0]):
        for m in range(tokens):
            _tile_in_place(p, operands, m, block, 1)


@macro
def whole_matmul(p, operands, tokens):
    """The whole matmul of ``tokens`` rows of codes."""
    if p.pairs:
        if tokens < p.token_tile:
            _one_by_one(p, operands, tokens)
        else:
            _tokens_in_pairs(p, operands, tokens)
    elif tokens == 1:
        _single_token(p, operands)
    elif p.isa.halves is not None:
        matmul_in_halves(p, operands, tokens)
    elif p.isa.matrix_product is not None:
        if tokens < p.token_tile:
            _several_tokens(p, operands, tokens)
        else:
            matmul_in_pairs_of_tokens(p, operands, tokens)
    elif p.tiles:
        if tokens <= p.token_tile:
            _few_tokens(p, operands, tokens)
        else:
            matmul_in_tiles(p, operands, tokens)
    elif p.block_tile > 1 and tokens <= p.token_tile:
        _few_tokens(p, operands, tokens)
    else:
        _several_tokens(p, operands, tokens)


def low_bit_matmul(
    isa: Isa,
    matrix: PackedMatrix,
    *,
    rank: int,
    has_bias: bool,
    epilogue: Epilogue = "none",
    seven_bits: bool = False,
) -> tirx.PrimFunc:
    """Builds ``y = epilogue(sum (code - zero_point) * q * (scale * a_scale) + bias)``.

    Args:
        isa: Instruction set to compile for.
        matrix: The packed weight.
        rank: Number of leading dimensions of the activations.
        has_bias: Whether the bias has one entry a row; otherwise it is ``[1]`` and holds 0.
        epilogue: What is applied to the result while it is in registers.
        seven_bits: Whether all codes of an 8-bit matrix are below 128.

    Returns:
        A function of codes int32 ``[..., padded(K)/4]``, activation scale float32 ``[...]``, code sum int32
        ``[...]``, weight int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``, bias float32 ``[N]`` or
        ``[1]``, and the output float32 ``[..., N]``.
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
            whole_matmul(p, Operands(q_words, a_scales, code_sums, weight, scale, bias, out), tokens)

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
