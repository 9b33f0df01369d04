"""A linear layer whose matrix is a sum of Kronecker products, applied factor by factor.

Tahaei et al., KroneckerBERT (NAACL 2022), and Edalati et al., KnGPT2 (ACL 2022): with ``x`` seen as a matrix
``X [n1, n2]``, ``(A (x) B) x`` is ``A X B^T`` row by row, so the large matrix never exists.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from edgeq.factor.cost import Cost, Evaluation, matmuls_or_dense
from edgeq.factor.decompose import kronecker_sum, nearest_kronecker
from edgeq.factor.kinds.base import FactorLinear, FactorSettings, FactorSpec
from edgeq.factor.kinds.blocks import BlockSpec
from edgeq.factor.kinds.kronecker_table import planned_table
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
class KroneckerSpec(FactorSpec):
    """A matrix ``[m1 m2, n1 n2]`` as a sum of ``terms`` products of ``[m1, n1]`` with ``[m2, n2]``.

    Attributes:
        left: Shape ``(m1, n1)`` of the left factors.
        right: Shape ``(m2, n2)`` of the right factors.
        terms: Number of products in the sum.
        bias: Whether the layer has a bias.
    """

    kind = "kronecker"

    left: tuple[int, int]
    right: tuple[int, int]
    terms: int
    bias: bool

    @classmethod
    def with_right(
        cls, name: str, rows: int, columns: int, right: tuple[int, int], *, terms: int = 1, bias: bool = True
    ) -> KroneckerSpec:
        """Chooses the left factor that goes with ``right`` for a matrix ``[rows, columns]``.

        Raises:
            UsageError: If the shapes do not divide, or there are more terms than the matrix can have.
        """
        check_divides(f"{name}: rows of the right Kronecker factor", rows, right[0])
        check_divides(f"{name}: columns of the right Kronecker factor", columns, right[1])
        left = (rows // right[0], columns // right[1])
        check_rank(f"{name}: Kronecker terms", terms, min(math.prod(left), math.prod(right)))
        return cls(left, right, terms, bias)

    @property
    def rows(self) -> int:
        """Output features."""
        return self.left[0] * self.right[0]

    @property
    def columns(self) -> int:
        """Input features."""
        return self.left[1] * self.right[1]

    @property
    def parameters(self) -> int:
        """Stored numbers, the bias included."""
        factors = self.terms * (math.prod(self.left) + math.prod(self.right))
        return factors + (self.rows if self.bias else 0)

    @property
    def matmuls(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The two matmuls of an evaluation as (times a token, rows, columns), right factor first."""
        (m1, n1), (m2, n2) = self.left, self.right
        if self.right_first:
            return (n1, self.terms * m2, n2), (m2, m1, self.terms * n1)
        return (m1, m2, self.terms * n2), (n2, self.terms * m1, n1)

    @property
    def right_first(self) -> bool:
        """Whether it costs less to multiply by the right factor before the left one."""
        (m1, n1), (m2, n2) = self.left, self.right
        return n1 * m2 * (n2 + m1) <= n2 * m1 * (n1 + m2)

    @property
    def shape(self) -> tuple[int, int]:
        """Output features and input features."""
        return self.rows, self.columns

    def build(self, model: nn.Module) -> KroneckerLinear:  # noqa: ARG002  # it refers to no module
        """Makes the layer."""
        return KroneckerLinear(self)

    def costs(self, *, readers: int = 1) -> dict[Evaluation, Cost]:  # noqa: ARG002  # no factor is shared
        """Returns the cost of each way to compute the layer."""
        return matmuls_or_dense(self.matmuls, self.rows, self.columns)


class KroneckerLinear(FactorLinear):
    """``y = sum_r (A_r (x) B_r) x + bias``.

    The terms of a sum stand side by side in two ordinary linear layers, ``right`` and ``left``, so that one matmul
    each does them all and either can be packed like any other layer. The cheaper of the two orders is used.

    Attributes:
        spec: Shapes of the factors.
        left: Float or packed linear layer that holds all ``A_r``.
        right: Float or packed linear layer that holds all ``B_r``.
        bias: float32 ``[m1 m2]``; None if there is none, or if the last of the two layers makes whole outputs and has
            the bias itself.
    """

    spec: KroneckerSpec

    def __init__(self, spec: KroneckerSpec) -> None:
        super().__init__()
        self.spec = spec
        (m1, n1), (m2, n2), terms = spec.left, spec.right, spec.terms
        inner = spec.bias and (m2 if spec.right_first else m1) == 1
        if spec.right_first:
            self.right = nn.Linear(n2, terms * m2, bias=False)
            self.left = nn.Linear(terms * n1, m1, bias=inner)
        else:
            self.left = nn.Linear(n1, terms * m1, bias=False)
            self.right = nn.Linear(terms * n2, m2, bias=inner)
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if spec.bias and not inner else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer.

        Args:
            x: float32, ``[..., n1 n2]``.

        Returns:
            float32, ``[..., m1 m2]``.
        """
        (m1, n1), (m2, n2), terms = self.spec.left, self.spec.right, self.spec.terms
        if self.spec.right_first:
            state = self.right(x.unflatten(-1, (n1, n2)))  # [..., n1, R m2]
            state = self.left(_regrouped(state, terms, m2))  # [..., m2, m1], or [..., m1]
            y = state if m2 == 1 else state.transpose(-1, -2).flatten(-2)
        else:
            columns = x if n2 == 1 else x.unflatten(-1, (n1, n2)).transpose(-1, -2)
            state = self.left(columns)  # [..., n2, R m1]
            state = self.right(_regrouped(state.unsqueeze(-2) if n2 == 1 else state, terms, m1))
            y = state if m1 == 1 else state.flatten(-2)
        return y if self.bias is None else y + self.bias

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[m1 m2]``."""
        parts = (self.bias, self.left.bias, self.right.bias)
        next(part for part in parts if part is not None).data.copy_(bias)

    def set_factors(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Stores the factors.

        Args:
            left: ``[terms, m1, n1]``.
            right: ``[terms, m2, n2]``.
        """
        with torch.no_grad():
            if self.spec.right_first:
                self.right.weight.copy_(right.flatten(0, 1))
                self.left.weight.copy_(left.permute(1, 0, 2).flatten(1))
            else:
                self.left.weight.copy_(left.flatten(0, 1))
                self.right.weight.copy_(right.permute(1, 0, 2).flatten(1))

    def fill(self, weight: torch.Tensor) -> torch.Tensor:
        """Takes the factors nearest to a matrix; see :meth:`FactorModule.fill`."""
        left, right = nearest_kronecker(weight, self.spec.left, self.spec.right, terms=self.spec.terms)
        self.set_factors(left, right)
        return kronecker_sum(left, right)

    def extra_repr(self) -> str:
        """Describes the layer in ``print(model)``."""
        (m1, n1), (m2, n2) = self.spec.left, self.spec.right
        return f"{self.spec.terms} x ({m1} x {n1}) (x) ({m2} x {n2})"


def _regrouped(state: torch.Tensor, terms: int, outputs: int) -> torch.Tensor:
    """Makes the terms of a sum, and what the first factor left open, the input of the second one.

    Args:
        state: ``[..., n, terms outputs]``.
        terms: Number of products in the sum.
        outputs: Outputs of the first factor.

    Returns:
        ``[..., outputs, terms n]``, or ``[..., terms n]`` if ``outputs`` is 1.
    """
    if outputs == 1:
        return (state if terms == 1 else state.transpose(-1, -2)).flatten(-2)
    if terms == 1:
        return state.transpose(-1, -2)
    return state.unflatten(-1, (terms, outputs)).movedim(-3, -1).transpose(-3, -2).flatten(-2)


@dataclasses.dataclass(frozen=True)
class KroneckerShape:
    """Factors of all matrices of one role; one of the two shapes is given, the other follows from the matrix.

    Attributes:
        right: Shape ``(m2, n2)`` of the right factors.
        left: Shape ``(m1, n1)`` of the left factors.
        terms: Number of products in the sum.
    """

    right: tuple[int, int] | None = None
    left: tuple[int, int] | None = None
    terms: int = 1


@dataclasses.dataclass(frozen=True)
class KroneckerSettings(FactorSettings):
    """Kronecker products for the matrices of some blocks, and for the vocabulary table.

    Attributes:
        shapes: Factors by role; roles that are missing stay dense.
        blocks: Which blocks.
        embedding_factor: ``f`` of the vocabulary table; 1 leaves it as it is.
    """

    method = "kronecker"
    options = ("blocks", "attention", "expand", "contract", "embedding_factor")

    shapes: dict[Role, KroneckerShape]
    blocks: BlockChoice = "all"
    embedding_factor: int = 1

    @classmethod
    def from_options(cls, options: Any) -> KroneckerSettings:
        """Makes settings of a recipe's table; see :meth:`FactorSettings.from_options`."""
        shapes: dict[Role, KroneckerShape] = {}
        for role in ROLES:
            if (given := getattr(options, role)) is not None:
                shapes[role] = KroneckerShape(given.right, given.left, given.terms)
        if not shapes and options.embedding_factor == 1:
            raise ValueError("kronecker needs a shape for attention, expand or contract, or an embedding_factor")
        return cls(shapes, options.blocks, options.embedding_factor)

    def plan(self, model: nn.Module, adapter: ModelAdapter) -> dict[str, FactorSpec]:
        """Decides what each layer becomes; see :meth:`FactorSettings.plan`."""
        specs: dict[str, FactorSpec] = {}
        for stack in adapter.stacks:
            for index in chosen_blocks(self.blocks, stack):
                for matrix in matrices_of(model, adapter, stack, index):
                    if matrix.role in self.shapes:
                        specs[matrix.name] = _planned(matrix, self.shapes[matrix.role])
        return specs | planned_table(model, adapter, self.embedding_factor)


def _planned(matrix: Matrix, shape: KroneckerShape) -> KroneckerSpec | BlockSpec:
    rows, columns = matrix.rows // matrix.parts, matrix.columns
    right = shape.right
    if right is None:
        left = shape.left or (rows, columns)
        check_divides(f"{matrix.name}: rows of the left Kronecker factor", rows, left[0])
        check_divides(f"{matrix.name}: columns of the left Kronecker factor", columns, left[1])
        right = (rows // left[0], columns // left[1])
    spec = KroneckerSpec.with_right(matrix.name, rows, columns, right, terms=shape.terms, bias=matrix.bias)
    return spec if matrix.parts == 1 else BlockSpec((matrix.parts, 1), spec, matrix.bias)
