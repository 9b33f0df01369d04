"""What kernels share about shapes: ``[..., columns]`` seen as rows, and parameters of output rows."""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

PARALLEL_ROWS = 8
"""Fewer rows than this are done by the calling thread: waking the others takes longer than the work."""


def leading_dimensions(rank: int) -> tuple[list[Any], Any]:
    """Returns ``rank`` fresh symbolic dimensions and their product, the number of rows."""
    lead = [tirx.Var(f"d{i}", "int64") for i in range(rank)]
    rows: Any = lead[0] if lead else tirx.IntImm("int64", 1)
    for dimension in lead[1:]:
        rows = rows * dimension
    return lead, rows


def row_parameter(buffer: Any, index: Any, width: int, count: int) -> Any:
    """Returns ``width`` neighbouring entries of a scale or bias of ``count`` entries; one entry serves all rows."""
    if count == 1:
        return T.broadcast(buffer[0], width) if width > 1 else buffer[0]
    return buffer[T.ramp(index, 1, width)] if width > 1 else buffer[index]
