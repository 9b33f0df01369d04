"""Rows of a float table, for embeddings that stayed float, and columns of scores, for distances between tokens."""

from tvm import tirx
from tvm.script import tirx as T

from edgeq.targets.compiler.kernels import script
from edgeq.targets.compiler.kernels.numerics import LANES, registers
from edgeq.targets.compiler.kernels.script import macro
from edgeq.targets.compiler.kernels.shapes import PARALLEL_ROWS, leading_dimensions
from edgeq.targets.runtime.plan import RowsRead

_ROWS = "edgeq.rows"


def reads_rows(kernel: tirx.PrimFunc, *, ids: int, table: int, tile: int) -> tirx.PrimFunc:
    """Returns a kernel that says of itself that it reads single rows of a table; see :class:`RowsRead`."""
    return kernel.with_attr(_ROWS, [ids, table, tile])


def rows_read(kernel: tirx.PrimFunc) -> RowsRead | None:
    """Returns what :func:`reads_rows` noted, None for other kernels."""
    noted = None if kernel.attrs is None else kernel.attrs.get(_ROWS)
    return None if noted is None else RowsRead(*map(int, noted))


@macro
def _copy_row(table, ids, out, i, table_rows, columns):
    row = registers((1,), "int64")
    row[0] = T.Select(T.And(ids[i] >= 0, ids[i] < table_rows), ids[i], T.int64(0))
    for c in range(columns):
        out[i, c] = table[row[0], c]


def gather_rows(table_rows: int, columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds ``y = table[id]``; an id outside the table reads row 0 (the runtimes refuse such ids first).

    Args:
        table_rows: Rows of the table.
        columns: Columns of the table.
        rank: Number of dimensions of the ids.

    Returns:
        A function of table float32 ``[rows, K]``, ids int64 ``[...]``, and the output float32 ``[..., K]``.
    """
    lead, rows = leading_dimensions(rank)

    @script.prim_func(s_tir=True)
    def gather(table_: T.handle, ids_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        table = T.match_buffer(table_, (table_rows, columns), "float32")
        ids_buffer = T.match_buffer(ids_, (*lead,), "int64")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            ids = T.decl_buffer((rows,), "int64", data=ids_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    _copy_row(table, ids, out, i, table_rows, columns)
            else:
                for i in T.parallel(rows):
                    _copy_row(table, ids, out, i, table_rows, columns)

    return reads_rows(gather, ids=1, table=0, tile=1)


@macro
def _copy_panel_row(panels, ids, out, i, table_rows, columns):
    row = registers((1,), "int64")
    row[0] = T.Select(T.And(ids[i] >= 0, ids[i] < table_rows), ids[i], T.int64(0))
    for c in range(columns):
        out[i, c] = panels[row[0] // LANES, c, row[0] % LANES]


def gather_panel_rows(table_rows: int, columns: int, *, rank: int) -> tirx.PrimFunc:
    """Builds what :func:`gather_rows` does on a table that is stored as panels of 16 rows, for a matmul.

    Args:
        table_rows: Rows of the table.
        columns: Columns of the table.
        rank: Number of dimensions of the ids.

    Returns:
        A function of panels float32 ``[ceil(rows/16), K, 16]``, ids int64 ``[...]``, and the output float32
        ``[..., K]``.
    """
    lead, rows = leading_dimensions(rank)

    @script.prim_func(s_tir=True)
    def gather(panels_: T.handle, ids_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        panels = T.match_buffer(panels_, (-(-table_rows // LANES), columns, LANES), "float32")
        ids_buffer = T.match_buffer(ids_, (*lead,), "int64")
        y_buffer = T.match_buffer(y, (*lead, columns), "float32")
        with T.sblock("root"):
            ids = T.decl_buffer((rows,), "int64", data=ids_buffer.data)
            out = T.decl_buffer((rows, columns), "float32", data=y_buffer.data)
            if rows < PARALLEL_ROWS:
                for i in range(rows):
                    _copy_panel_row(panels, ids, out, i, table_rows, columns)
            else:
                for i in T.parallel(rows):
                    _copy_panel_row(panels, ids, out, i, table_rows, columns)

    return reads_rows(gather, ids=1, table=0, tile=LANES)


def gather_columns() -> tirx.PrimFunc:
    """Builds ``y[b, h, i, j] = x[b, h, i, columns[i, j]]``; a column outside the scores reads column 0.

    Returns:
        A function of x float32 ``[B, H, Q, R]``, columns int64 ``[1, 1, Q, K]``, and the output float32
        ``[B, H, Q, K]``.
    """
    names = ("batch", "heads", "queries", "keys", "places")
    batch, heads, queries, keys, places = (tirx.Var(name, "int64") for name in names)

    @script.prim_func(s_tir=True)
    def gather(x_: T.handle, columns_: T.handle, y: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_, (batch, heads, queries, places), "float32")
        columns = T.match_buffer(columns_, (1, 1, queries, keys), "int64")
        out = T.match_buffer(y, (batch, heads, queries, keys), "float32")
        with T.sblock("root"):
            for task in T.parallel(batch * heads):
                for i in range(queries):
                    for j in range(keys):
                        column = registers((1,), "int64")
                        column[0] = T.Select(
                            T.And(columns[0, 0, i, j] >= 0, columns[0, 0, i, j] < places),
                            columns[0, 0, i, j],
                            T.int64(0),
                        )
                        out[task // heads, task % heads, i, j] = x[task // heads, task % heads, i, column[0]]

    return gather
