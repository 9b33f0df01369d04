"""Rows of a packed table, decoded while they are gathered."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from edgeq.formats import COLUMN_GROUP, ROW_TILE, PackedMatrix
from edgeq.targets.kernels.shapes import leading_dimensions


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
    row_blocks, column_blocks, _, _ = matrix.packed_shape
    fields, bits, columns = matrix.fields, matrix.bits, matrix.columns
    whole_groups, tail = divmod(columns, COLUMN_GROUP)
    zero_point = matrix.zero_point

    def decoded(word: Any, field: Any, scale: Any) -> Any:
        """Four neighbouring columns of one field."""
        codes = T.reinterpret(T.shift_right(word, T.cast(field * bits, "int32")), dtype="uint8x4")
        masked = T.bitwise_and(codes, T.broadcast(T.uint8(2**bits - 1), 4))
        return (T.cast(masked, "float32x4") - T.broadcast(T.float32(zero_point), 4)) * T.broadcast(scale, 4)

    @T.prim_func(s_tir=True)
    def gather(ids_: T.handle, table_: T.handle, scale_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        ids_buffer = T.match_buffer(ids_, (*lead,), "int64")
        table = T.match_buffer(table_, (row_blocks, column_blocks, ROW_TILE), "int32")
        scale = T.match_buffer(scale_, (matrix.scales,), "float32")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            ids = T.decl_buffer((rows,), "int64", data=ids_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            for i in T.parallel(rows):
                row = T.alloc_buffer((1,), "int64", scope="local")
                last = T.alloc_buffer((COLUMN_GROUP,), "float32", scope="local")
                row[0] = T.Select(T.And(ids[i] >= 0, ids[i] < matrix.rows), ids[i], T.int64(0))
                for group in range(whole_groups):
                    out[i, T.ramp(group * COLUMN_GROUP, 1, COLUMN_GROUP)] = decoded(
                        table[row[0] // ROW_TILE, group // fields, row[0] % ROW_TILE],
                        group % fields,
                        scale[T.min(row[0], matrix.scales - 1)],
                    )
                if tail > 0:
                    last[T.ramp(0, 1, COLUMN_GROUP)] = decoded(
                        table[row[0] // ROW_TILE, whole_groups // fields, row[0] % ROW_TILE],
                        whole_groups % fields,
                        scale[T.min(row[0], matrix.scales - 1)],
                    )
                    for c in range(tail):
                        out[i, whole_groups * COLUMN_GROUP + c] = last[c]

    return gather
