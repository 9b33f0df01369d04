"""Leading dimensions of unknown size: kernels see ``[..., columns]`` as rows."""

from typing import Any

from tvm import tirx

PARALLEL_ROWS = 8
"""Fewer rows than this are done by the calling thread: waking the others takes longer than the work."""


def leading_dimensions(rank: int) -> tuple[list[Any], Any]:
    """Returns ``rank`` fresh symbolic dimensions and their product, the number of rows."""
    lead = [tirx.Var(f"d{i}", "int64") for i in range(rank)]
    rows: Any = lead[0] if lead else tirx.IntImm("int64", 1)
    for dimension in lead[1:]:
        rows = rows * dimension
    return lead, rows
