"""Memory that a kernel takes while it runs: buffers whose size only a call tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tvm

ALIGNMENT = 64
"""Every buffer takes a multiple of so many bytes."""
_ON_THE_STACK = "disable_lower_builtin"
"""Annotation of buffers that a kernel keeps in registers or on its stack."""


def workspaces(kernel: tvm.tirx.PrimFunc) -> list[tuple[list[Any], int]]:
    """Returns the shape of each buffer, as expressions of the kernel's own dimensions, and its bytes an element."""
    return [
        (list(statement.buffer.shape), np.dtype(str(statement.buffer.dtype)).itemsize)
        for statement in _statements(kernel.body)
        if isinstance(statement, tvm.tirx.AllocBuffer) and _ON_THE_STACK not in statement.annotations
    ]


def dimensions(kernel: tvm.tirx.PrimFunc) -> Iterator[list[Any]]:
    """Yields the shape of each tensor that the kernel takes, in order; an empty one for numbers."""
    for parameter in kernel.params:
        yield list(getattr(parameter.ty, "shape", []))


def _statements(statement: Any) -> Iterator[Any]:
    """Yields a statement and those inside it."""
    yield statement
    if isinstance(statement, tvm.tirx.SeqStmt):
        inner = list(statement.seq)
    elif isinstance(statement, tvm.s_tir.SBlockRealize):
        inner = [statement.block.body]
    else:
        inner = [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    for item in inner:
        if isinstance(item, tvm.tirx.Stmt):
            yield from _statements(item)
