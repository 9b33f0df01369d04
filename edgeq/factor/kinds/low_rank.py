"""A linear layer of low rank: the baseline that any other factorisation has to beat."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from edgeq.factor.cost import Cost, Evaluation, matmuls_or_dense
from edgeq.factor.decompose import truncated_svd
from edgeq.factor.kinds.base import FactorLinear, FactorSettings, FactorSpec
from edgeq.factor.kinds.blocks import BlockSpec
from edgeq.factor.matrices import (
    ROLES,
    BlockChoice,
    Matrix,
    Role,
    check_divides,
    check_rank,
    chosen_blocks,
    matrices_of,
)
from edgeq.models import ModelAdapter


@dataclasses.dataclass(frozen=True)
class LowRankSpec(FactorSpec):
    """A matrix ``[rows, columns]`` of rank ``rank``: ``up core down``.

    Attributes:
        rows: Output features.
        columns: Input features.
        rank: Size of the state between the factors.
        core: Whether there is a square matrix between them (parameterisation II of the Tucker paper).
        bias: Whether the layer has a bias.
    """

    kind = "low-rank"

    rows: int
    columns: int
    rank: int
    core: bool
    bias: bool

    @property
    def parameters(self) -> int:
        """Stored numbers, the bias included."""
        factors = self.rank * (self.rows + self.columns) + (self.rank**2 if self.core else 0)
        return factors + (self.rows if self.bias else 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Output features and input features."""
        return self.rows, self.columns

    def build(self, model: nn.Module) -> LowRankLinear:  # noqa: ARG002  # it refers to no module
        """Makes the layer."""
        return LowRankLinear(self)

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:  # noqa: ARG002  # no factor is shared
        """Returns the cost of each way to compute the layer."""
        products = [(1, self.rank, self.columns), (1, self.rows, self.rank)]
        products += [(1, self.rank, self.rank)] if self.core else []
        return matmuls_or_dense(products, self.rows, self.columns)


class LowRankLinear(FactorLinear):
    """``y = up(core(down(x))) + bias``; parameterisation II of Ren et al. (arXiv 2205.10036) if it has a core.

    Attributes:
        spec: Sizes.
        down: Linear layer ``columns -> rank``.
        core: Linear layer ``rank -> rank``, or None.
        up: Linear layer ``rank -> rows``, with the bias.
    """

    spec: LowRankSpec

    def __init__(self, spec: LowRankSpec) -> None:
        super().__init__()
        self.spec = spec
        self.down = nn.Linear(spec.columns, spec.rank, bias=False)
        self.core = nn.Linear(spec.rank, spec.rank, bias=False) if spec.core else None
        self.up = nn.Linear(spec.rank, spec.rows, bias=spec.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        state = self.down(x)
        if self.core is not None:
            state = self.core(state)
        y: torch.Tensor = self.up(state)
        return y

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        self.up.bias.data.copy_(bias)

    @torch.no_grad()
    def fill(self, weight: torch.Tensor) -> torch.Tensor:
        """Takes the factors nearest to a matrix; see :meth:`FactorModule.fill`."""
        up, values, down = truncated_svd(weight, self.spec.rank)
        nearest = (up * values) @ down
        if self.core is None:
            root = values.sqrt()
            up, down = up * root, root[:, None] * down
        else:
            self.core.weight.copy_(torch.diag(values))
        self.up.weight.copy_(up)
        self.down.weight.copy_(down)
        return nearest


@dataclasses.dataclass(frozen=True)
class LowRankSettings(FactorSettings):
    """Every matrix on its own, by truncated SVD.

    Attributes:
        rank: ``d``.
        sliced: Cut feed-forward matrices into square slices first and put a core between the factors, as
            parameterisation II of the Tucker paper does.
        blocks: Which blocks.
        roles: Which matrices take part.
    """

    method = "low-rank"
    options = ("blocks", "rank", "roles", "sliced")

    rank: int
    sliced: bool = False
    blocks: BlockChoice = "all"
    roles: tuple[Role, ...] = ROLES

    @classmethod
    def from_options(cls, options: Any) -> LowRankSettings:
        """Makes settings of a recipe's table; see :meth:`FactorSettings.from_options`."""
        if options.rank is None:
            raise ValueError("low-rank needs a rank")
        return cls(options.rank, options.sliced, options.blocks, options.roles)

    def plan(self, model: nn.Module, adapter: ModelAdapter) -> dict[str, FactorSpec]:
        """Decides what each layer becomes; see :meth:`FactorSettings.plan`."""
        specs: dict[str, FactorSpec] = {}
        for stack in adapter.stacks:
            for index in chosen_blocks(self.blocks, stack):
                for matrix in matrices_of(model, adapter, stack, index):
                    if matrix.role in self.roles:
                        specs[matrix.name] = _planned(matrix, self)
        return specs


def _planned(matrix: Matrix, settings: LowRankSettings) -> LowRankSpec | BlockSpec:
    rows, columns = matrix.rows // matrix.parts, matrix.columns
    grid = (matrix.parts, 1)
    if settings.sliced and rows != columns:
        width = min(rows, columns)
        check_divides(f"{matrix.name}: slices", max(rows, columns), width)
        grid = (grid[0] * rows // width, columns // width)
        rows = columns = width
    check_rank(matrix.name, settings.rank, min(rows, columns))
    whole_rows = grid[1] == 1  # otherwise several blocks add up to one output
    spec = LowRankSpec(rows, columns, settings.rank, core=settings.sliced, bias=whole_rows and matrix.bias)
    return spec if grid == (1, 1) else BlockSpec(grid, spec, matrix.bias)
