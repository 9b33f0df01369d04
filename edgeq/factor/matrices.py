"""The matrices of a model's blocks that may be factorised: which there are, and what divides what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from torch import nn

from edgeq.errors import UsageError
from edgeq.models import LayerStack, ModelAdapter
from edgeq.quant.float_layers import weight_rows

Role = Literal["attention", "expand", "contract"]
"""What a matrix is in its block: as wide as high, the widening one of a feed-forward layer, or the narrowing one."""
ROLES: tuple[Role, ...] = ("attention", "expand", "contract")

BlockChoice = Literal["all", "odd", "even"] | tuple[int, ...]
"""Blocks of each stack, counted from 0."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One linear layer of a block.

    Attributes:
        name: Module name.
        rows: Output features.
        columns: Input features.
        parts: Matrices that stand one below the other: 3 where the layer makes queries, keys and values at once.
        bias: Whether it has a bias.
    """

    name: str
    rows: int
    columns: int
    parts: int
    bias: bool

    @property
    def role(self) -> Role:
        """What the matrix is in its block."""
        height = self.rows // self.parts
        return "attention" if height == self.columns else "expand" if height > self.columns else "contract"


def chosen_blocks(blocks: BlockChoice, stack: LayerStack) -> list[int]:
    """Returns the numbers of the blocks of a stack that are meant.

    Raises:
        UsageError: If a block is not there.
    """
    known = range(stack.depth)
    if blocks == "all":
        return list(known)
    if blocks in ("odd", "even"):
        return [index for index in known if index % 2 == (blocks == "odd")]
    for index in blocks:
        if index not in known:
            raise UsageError(
                f"the recipe factorises block {index} of the {stack.name}, which has {stack.depth}, counted from 0"
            )
    return [int(index) for index in blocks]


def matrices_of(model: nn.Module, adapter: ModelAdapter, stack: LayerStack, index: int) -> Iterator[Matrix]:
    """Yields the linear layers of block ``index`` of a stack."""
    block = stack.block(index)
    parts = {f"{block}.{tap.query}": tap.parts for tap in stack.attentions}
    for name in adapter.linear_names:
        if name.startswith(f"{block}."):
            module = model.get_submodule(name)
            rows, columns = weight_rows(module).shape
            yield Matrix(name, rows, columns, parts.get(name, 1), getattr(module, "bias", None) is not None)


def divisors(number: int) -> list[int]:
    """Returns all divisors of ``number`` in ascending order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def check_divides(what: str, size: int, part: int) -> None:
    """Refuses a factor that a dimension cannot be divided by.

    Raises:
        UsageError: If ``part`` does not divide ``size``; the message lists what does.
    """
    if part < 1 or size % part:
        known = ", ".join(map(str, divisors(size)))
        raise UsageError(f"{what}: {part} does not divide {size}; these do: {known}")


def check_rank(what: str, rank: int, largest: int) -> None:
    """Refuses a rank that is not in 1..``largest``.

    Raises:
        UsageError: If it is not.
    """
    if not 1 <= rank <= largest:
        raise UsageError(f"{what}: the rank must be 1 to {largest}, found {rank}")
