"""The plan of a function: kernel calls in a fixed order over one arena, with sizes as expressions of dimensions.

An expression is an integer, or a text in postfix notation over integers, names of dimensions and ``+ - * / % min max``
(quotients and remainders are floored): ``"batch sequence * 384 *"``. An argument names a tensor by kind and number:
``i`` (input), ``s`` (state), ``w`` (weight) or ``t`` (entry of the plan's own list).
"""

from __future__ import annotations

import dataclasses
from typing import Any

Expression = int | str


@dataclasses.dataclass(frozen=True)
class PlanTensor:
    """A tensor in the arena.

    Attributes:
        dtype: numpy name of the element type; ``bool`` too.
        shape: Sizes.
        first: Number of the step that writes it first.
        last: Number of the last step that reads it; the number of steps for an output.
    """

    dtype: str
    shape: tuple[Expression, ...]
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class PlanView:
    """The memory of another tensor with another shape of as many elements.

    Attributes:
        of: Argument, of an earlier tensor if it is of the plan's own list.
        dtype: Its element type.
        shape: Sizes.
    """

    of: str
    dtype: str
    shape: tuple[Expression, ...]


@dataclasses.dataclass(frozen=True)
class RowsRead:
    """A step reads those rows of a table that ids name, and nothing else of it: only they are compared with digests.

    Attributes:
        ids: Number of the argument that holds the ids, int64. For one that the table does not have, row 0 is read.
        table: Number of the argument that is the table, a weight.
        tile: Rows that lie together as one entry of the table's first axis.
    """

    ids: int
    table: int
    tile: int


@dataclasses.dataclass(frozen=True)
class PlanStep:
    """One call of a kernel.

    Attributes:
        kernel: Its name; ``__tvm_ffi_`` and this is its symbol in the code file.
        args: Arguments; an expression in a tuple of one stands for an integer argument.
        workspace: Bytes that a thread needs while it runs a part of it; 0 for most.
        rows: Which rows of a weight it reads, if not all.
    """

    kernel: str
    args: tuple[str | tuple[Expression], ...]
    workspace: Expression = 0
    rows: RowsRead | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a runtime does in a call.

    Attributes:
        dims: Dimensions, each of which a named size of an input or of the state gives.
        tensors: Tensors of the arena and views, numbered from 0.
        steps: Kernel calls, in order.
        outputs: What the function gives.
    """

    dims: tuple[str, ...]
    tensors: tuple[PlanTensor | PlanView, ...]
    steps: tuple[PlanStep, ...]
    outputs: tuple[str, ...]

    def to_table(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "dims": list(self.dims),
            "tensors": [{**dataclasses.asdict(tensor), "shape": list(tensor.shape)} for tensor in self.tensors],
            "steps": [
                {
                    "kernel": step.kernel,
                    "args": [arg if isinstance(arg, str) else {"int": arg[0]} for arg in step.args],
                    **({"workspace": step.workspace} if step.workspace else {}),
                    **({"rows": dataclasses.asdict(step.rows)} if step.rows else {}),
                }
                for step in self.steps
            ],
            "outputs": list(self.outputs),
        }
