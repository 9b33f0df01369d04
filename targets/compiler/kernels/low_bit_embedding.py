"""Rows of a packed table, decoded while they are gathered."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.packing import COLUMN_GROUP, ROW_TILE
from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.gather_rows import reads_rows
from edgeq.targets.compiler.kernels.numerics import registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS, leading_dimensions


def _decoded(matrix: PackedMatrix, word: Any, field: Any, scale: Any) -> Any:
    """Four neighbouring columns of one field."""
    codes = T.reinterpret(T.shift_right(word, T.cast(field * matrix.bits, "int32")), dtype="uint8x4")
    masked = T.bitwise_and(codes, T.broadcast(T.uint8(2**matrix.bits - 1), 4))
    centred = T.cast(masked, "float32x4") - T.broadcast(T.float32(matrix.zero_point), 4)
    return centred * T.broadcast(scale, 4)


@macro
def _decode_row(matrix, ids, table, scale, out, i):
    row = registers((1,), "int64")
    row[0] = T.Select(T.And(ids[i] >= 0, ids[i] < matrix.rows), ids[i], T.int64(0))
    for group in range(matrix.columns // COLUMN_GROUP):
        out[i, T.ramp(group * COLUMN_GROUP, 1, COLUMN_GROUP)] = _decoded(
            matrix,
            table[row[0] // ROW_TILE, group // matrix.fields, row[0] % ROW_TILE],
            group % matrix.fields,
            scale[T.min(row[0], matrix.scales - 1)],
        )
    if matrix.columns % COLUMN_GROUP > 0:
        last = registers((COLUMN_GROUP,), "float32")
        last[T.ramp(0, 1, COLUMN_GROUP)] = _decoded(
            matrix,
            table[row[0] // ROW_TILE, matrix.columns // COLUMN_GROUP // matrix.fields, row[0] % ROW_TILE],
            matrix.columns // COLUMN_GROUP % matrix.fields,
            scale[T.min(row[0], matrix.scales - 1)],
        )
        for column in range(matrix.columns // COLUMN_GROUP * COLUMN_GROUP, matrix.columns):
            out[i, column] = last[column % COLUMN_GROUP]


@macro
def decode_rows(matrix, ids, table, scale, out, rows):
    """Decodes the rows that ``ids`` name."""
    if rows < PARALLEL_ROWS:
        for i in range(rows):
            _decode_row(matrix, ids, table, scale, out, i)
    else:
        for i in T.parallel(rows):
            _decode_row(matrix, ids, table, scale, out, i)


def low_bit_embedding(matrix: PackedMatrix, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = scale[id] * (code[id] - zero_point)``.

    An id outside the table reads row 0: the runtimes refuse such ids before the model runs, and a kernel must never
    read outside its buffers.

    Args:
        matrix: The packed table.
        rank: Number of dimensions of the ids.

    Returns:
        A function of ids int64 ``[...]``, table int32 ``[N/16, K/(4F), 16]``, scale float32 ``[N]`` or ``[1]``, and the
        output float32 ``[..., K]``.
    """
    lead, rows = leading_dimensions(rank)

    @script.prim_func(s_tir=True)
    def gather(ids_: T.handle, table_: T.handle, scale_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        ids_buffer = T.match_buffer(ids_, (*lead,), "int64")
        table = T.match_buffer(table_, matrix.packed_shape[:3], "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        y_buffer = T.match_buffer(y, (*lead, matrix.columns), "float32")
        with T.sblock("root"):
            ids = T.decl_buffer((rows,), "int64", data=ids_buffer.data)
            out = T.decl_buffer((rows, matrix.columns), "float32", data=y_buffer.data)
            decode_rows(matrix, ids, table, scale, out, rows)

    return reads_rows(gather, ids=0, table=1, tile=ROW_TILE)
