"""How a model is to be factorised: what recipes say, before any matrix is looked at."""

from __future__ import annotations

import dataclasses
from typing import Literal

Role = Literal["attention", "expand", "contract"]
"""What a matrix is in its block: as wide as high, the widening one of a feed-forward layer, or the narrowing one."""
ROLES: tuple[Role, ...] = ("attention", "expand", "contract")

BlockChoice = Literal["all", "odd", "even"] | tuple[int, ...]
"""Blocks of each stack, counted from 0."""


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
class KroneckerSettings:
    """Kronecker products for the matrices of some blocks, and for the vocabulary table.

    Attributes:
        shapes: Factors by role; roles that are missing stay dense.
        blocks: Which blocks.
        embedding_factor: ``f`` of the vocabulary table; 1 leaves it as it is.
    """

    shapes: dict[Role, KroneckerShape]
    blocks: BlockChoice = "all"
    embedding_factor: int = 1


@dataclasses.dataclass(frozen=True)
class TuckerSettings:
    """One Tucker decomposition over the matrices of all blocks.

    Attributes:
        rank: ``d``.
        cores: ``l``, the size of the bank; 0 for a core a slice (III).
        roles: Which matrices take part.
    """

    rank: int
    cores: int = 0
    roles: tuple[Role, ...] = ROLES


@dataclasses.dataclass(frozen=True)
class LowRankSettings:
    """Every matrix on its own, by truncated SVD.

    Attributes:
        rank: ``d``.
        sliced: Cut feed-forward matrices into square slices first and put a core between the factors, as
            parameterisation II of the Tucker paper does.
        blocks: Which blocks.
        roles: Which matrices take part.
    """

    rank: int
    sliced: bool = False
    blocks: BlockChoice = "all"
    roles: tuple[Role, ...] = ROLES


FactorSettings = KroneckerSettings | TuckerSettings | LowRankSettings
