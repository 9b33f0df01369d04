"""A linear layer cut into blocks that are factorised one by one.

GPT-2 holds queries, keys and values in one matrix, whose three parts have little in common; the Tucker paper's
parameterisation II cuts the feed-forward matrices into four.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import nn

from edgeq.factor.cost import Cost, Evaluation, dense_cost
from edgeq.factor.kinds.base import FactorLinear, FactorModule, FactorSpec, Reader


class PartSpec(Protocol):
    """What one block may be: any kind that stands alone for a matrix of known size and may have a bias."""

    @property
    def rows(self) -> int:
        """Output features."""

    @property
    def columns(self) -> int:
        """Input features."""

    @property
    def bias(self) -> bool:
        """Whether it has a bias."""

    @property
    def parameters(self) -> int:
        """Stored numbers."""

    def build(self, model: nn.Module) -> FactorModule:
        """Makes the layer."""

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:
        """Returns the cost of each way to compute it."""


def _read_part(entry: object) -> Any:
    from edgeq.factor.kinds import KINDS  # which lists this kind, too

    if not isinstance(entry, dict):
        raise TypeError
    kind = KINDS[entry["kind"]]
    if kind is BlockSpec or kind.refers_to or kind.is_shared or kind.replaces != "linear":
        raise TypeError
    return kind.from_json(entry)


@dataclasses.dataclass(frozen=True)
class BlockSpec(FactorSpec):
    """A matrix cut into a grid of equal blocks, each factorised on its own.

    Attributes:
        grid: Blocks (down, across).
        part: One block; it has a part of the bias where blocks only stand one below the other.
        bias: Whether the whole layer has a bias.
    """

    kind = "blocks"
    readers: ClassVar[Mapping[str, Reader]] = {"part": _read_part}

    grid: tuple[int, int]
    part: PartSpec
    bias: bool

    @property
    def rows(self) -> int:
        """Output features."""
        return self.grid[0] * self.part.rows

    @property
    def columns(self) -> int:
        """Input features."""
        return self.grid[1] * self.part.columns

    @property
    def parameters(self) -> int:
        """Stored numbers, the bias included."""
        own_bias = self.bias and not self.part.bias
        return math.prod(self.grid) * self.part.parameters + (self.rows if own_bias else 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Output features and input features."""
        return self.rows, self.columns

    def build(self, model: nn.Module) -> BlockLinear:  # noqa: ARG002  # it refers to no module
        """Makes the layer."""
        return BlockLinear(self)

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:  # noqa: ARG002  # no factor is shared
        """Returns the cost of each way to compute the layer."""
        part, blocks = self.part.costs()["factored"], math.prod(self.grid)
        factored = Cost(blocks * part.macs, blocks * part.weights, blocks * part.matmuls)
        return {"factored": factored, "dense": dense_cost(self.rows, self.columns)}


class BlockLinear(FactorLinear):
    """``y_i = sum_j part_ij x_j``, outputs side by side, ``+ bias``.

    Attributes:
        spec: The grid, and what one block is.
        parts: The blocks row by row.
        bias: float32 ``[rows]``, or None where there is none, or the blocks have it.
    """

    spec: BlockSpec

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        down, across = spec.grid
        self.parts = nn.ModuleList(spec.part.build(self) for _ in range(down * across))
        own_bias = spec.bias and not spec.part.bias
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if own_bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        down, across = self.spec.grid
        pieces = x.chunk(across, dim=-1) if across > 1 else (x,)  # a split into one would stay in the graph
        outputs = []
        for row in range(down):
            total = self.parts[row * across](pieces[0])
            for column in range(1, across):
                total = total + self.parts[row * across + column](pieces[column])
            outputs.append(total)
        y = torch.cat(outputs, dim=-1) if down > 1 else outputs[0]
        return y if self.bias is None else y + self.bias

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        if self.bias is not None:
            self.bias.data.copy_(bias)
            return
        for part, own in zip(self.parts, bias.chunk(len(self.parts)), strict=True):
            cast(FactorModule, part).set_bias(own)

    def fill(self, weight: torch.Tensor) -> torch.Tensor:
        """Takes the factors nearest to each block; see :meth:`FactorModule.fill`."""
        down, across = self.spec.grid
        blocks = [piece for row in weight.chunk(down) for piece in row.chunk(across, dim=1)]
        parts = [cast(FactorModule, part) for part in self.parts]
        nearest = [part.fill(block.contiguous()) for part, block in zip(parts, blocks, strict=True)]
        rows = [torch.cat(nearest[row * across : (row + 1) * across], dim=1) for row in range(down)]
        return torch.cat(rows)
