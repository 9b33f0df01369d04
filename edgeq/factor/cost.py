"""What a factorised layer costs to compute: multiply-accumulates and bytes read, for each way to compute it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

Evaluation = Literal["factored", "up", "down", "dense"]
"""As stored; with the cores multiplied into the last or the first factor beforehand; as the dense matrix."""

Evaluate = Literal["auto", "factored", "up", "down", "dense"]
"""What a recipe may ask for: one of these, or as the cost model says."""

_READ_TOGETHER = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")

MACS_PER_BYTE = 8
"""Float multiply-accumulates that a core does while it reads one byte of weights from memory."""
MACS_PER_MATMUL = 100_000
"""The same for starting one more matmul: a call, and a pass over its input and output."""
_FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of one layer.

    Attributes:
        macs: Multiply-adds a token.
        weights: Numbers read for any number of tokens.
        matmuls: Number of matmuls.
    """

    macs: int
    weights: int
    matmuls: int

    def total(self, tokens: int) -> float:
        """Returns all of it for a number of tokens, in multiply-accumulates."""
        return self.macs * tokens + MACS_PER_BYTE * _FLOAT_BYTES * self.weights + MACS_PER_MATMUL * self.matmuls


def dense_cost(rows: int, columns: int) -> Cost:
    """Returns the cost of a dense matrix."""
    return Cost(rows * columns, rows * columns, 1)


def matmuls_or_dense(
    matmuls: Iterable[tuple[int, int, int]], rows: int, columns: int
) -> dict[Evaluation, Cost]:
    """Returns the costs of a layer that is computed matmul by matmul, or as the dense matrix.

    Args:
        matmuls: Each as (times a token, rows, columns).
        rows: Output features.
        columns: Input features.
    """
    shapes = list(matmuls)
    factored = Cost(
        sum(times * rows * columns for times, rows, columns in shapes),
        sum(rows * columns for _, rows, columns in shapes),
        len(shapes),
    )
    return {"factored": factored, "dense": dense_cost(rows, columns)}


def cheapest(options: dict[Evaluation, Cost], tokens: int) -> Evaluation:
    """Returns the cheapest way for a number of tokens that does not make the dense matrix."""
    return min((way for way in options if way != "dense"), key=lambda way: options[way].total(tokens))


class SharesFirstFactor(Protocol):
    """What is asked of a layer: whether it may share the matmul with its first factor."""

    @property
    def shares_first_factor(self) -> bool:
        """Whether layers that read the same input compute their first factor once."""


def readers_of(name: str, specs: Mapping[str, SharesFirstFactor]) -> int:
    """Returns how many of the layers read the input of ``name`` with its first factor: it is computed once."""
    group = _group(name)
    if not group or not specs[name].shares_first_factor:
        return 1
    return sum(_group(other) == group and spec.shares_first_factor for other, spec in specs.items())


def _group(name: str) -> str:
    """The attention whose queries, keys and values read one input; empty for other layers."""
    owner, _, last = name.rpartition(".")
    return owner if last in _READ_TOGETHER else ""
