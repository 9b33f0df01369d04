"""What a factorised layer is: sizes without data, as plans, checkpoints and cost models share them."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from edgeq.errors import UsageError

Fold = Literal["none", "up", "down"]
"""Which products of constant factors are made beforehand: none, core times last factor, or first times core."""
FOLDS: tuple[Fold, ...] = ("none", "up", "down")

OUTER_FACTORS = ("left_down", "right_up", "right_down", "left_up")
"""Uses of ``U`` and ``V``: reading with ``U``, making with ``V``, and for transposed slices the reverse."""

Evaluate = Literal["auto", "factored", "up", "down", "dense"]
"""How factorised layers are computed: as the cost model says, as stored, folded, or as the dense matrix."""


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


@dataclasses.dataclass(frozen=True)
class KroneckerSpec:
    """A matrix ``[m1 m2, n1 n2]`` as a sum of ``terms`` products of ``[m1, n1]`` with ``[m2, n2]``.

    Attributes:
        left: Shape ``(m1, n1)`` of the left factors.
        right: Shape ``(m2, n2)`` of the right factors.
        terms: Number of products in the sum.
        bias: Whether the layer has a bias.
    """

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
    def products(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The two products of an evaluation as (times a token, rows, columns), right factor first."""
        (m1, n1), (m2, n2) = self.left, self.right
        if self.right_first:
            return (n1, self.terms * m2, n2), (m2, m1, self.terms * n1)
        return (m1, m2, self.terms * n2), (n2, self.terms * m1, n1)

    @property
    def right_first(self) -> bool:
        """Whether it costs less to multiply by the right factor before the left one."""
        (m1, n1), (m2, n2) = self.left, self.right
        return n1 * m2 * (n2 + m1) <= n2 * m1 * (n1 + m2)


@dataclasses.dataclass(frozen=True)
class LowRankSpec:
    """A matrix ``[rows, columns]`` of rank ``rank``: ``up core down``.

    Attributes:
        rows: Output features.
        columns: Input features.
        rank: Size of the state between the factors.
        core: Whether there is a square matrix between them (parameterisation II of the Tucker paper).
        bias: Whether the layer has a bias.
    """

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


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """A matrix cut into a grid of equal blocks, each factorised on its own.

    Attributes:
        grid: Blocks (down, across).
        part: One block; it has a part of the bias where blocks only stand one below the other.
        bias: Whether the whole layer has a bias.
    """

    grid: tuple[int, int]
    part: KroneckerSpec | LowRankSpec
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


@dataclasses.dataclass(frozen=True)
class BankSpec:
    """Outer factors ``U [width, rank]`` and ``V [rank, width]``, and cores that all layers of a model share.

    Attributes:
        width: Hidden size; every slice is ``[width, width]``.
        rank: ``d``.
        cores: ``l``, the number of shared core matrices; 0 where every slice has its own (III-d).
        factors: Outer factors that are stored, of ``OUTER_FACTORS``. Transposed slices use ``U`` and ``V`` the other
            way round; those uses are tied to the first two unless they are stored, too.
    """

    width: int
    rank: int
    cores: int
    factors: tuple[str, ...] = ("left_down", "right_up")

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return len(self.factors) * self.width * self.rank + self.cores * self.rank**2


@dataclasses.dataclass(frozen=True)
class TuckerSpec:
    """One linear layer as a grid of slices ``U S V`` over a bank.

    Attributes:
        bank: Module name of the bank.
        width: Hidden size.
        rank: ``d``.
        grid: Slices (outputs / width, inputs / width).
        mixed: Number of shared cores that each slice's core is a mixture of; 0 if the layer has its own cores.
        transposed: Whether slices are output x input (the widening matrix of a feed-forward layer), so that
            ``V`` reads the input and ``U`` makes the output.
        fold: What was multiplied beforehand; stored as such.
        bias: Whether the layer has a bias.
    """

    bank: str
    width: int
    rank: int
    grid: tuple[int, int]
    mixed: int
    transposed: bool
    bias: bool
    fold: Fold = "none"

    @property
    def slices(self) -> int:
        """Number of slices."""
        return math.prod(self.grid)

    @property
    def rows(self) -> int:
        """Output features."""
        return self.grid[0] * self.width

    @property
    def columns(self) -> int:
        """Input features."""
        return self.grid[1] * self.width

    @property
    def parameters(self) -> int:
        """Stored numbers of the layer itself, without those of the bank; the bias included."""
        bias = self.rows if self.bias else 0
        if self.fold != "none":
            return self.slices * self.width * self.rank + bias
        return self.slices * (self.mixed or self.rank**2) + bias


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec:
    """A table ``[rows, columns]`` as ``A (x) b``: a narrower table, and what each of its numbers becomes.

    Attributes:
        rows: Entries.
        columns: Width of what a look-up returns.
        factor: ``f``: numbers that one stored number becomes; the stored table has ``columns / f`` of them.
        terms: Number of products in the sum.
    """

    rows: int
    columns: int
    factor: int
    terms: int = 1

    @property
    def stored_columns(self) -> int:
        """Width of the stored table."""
        return self.terms * self.columns // self.factor

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return self.rows * self.stored_columns + self.terms * self.factor


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """An output head on the rows of a factorised table; it stores nothing.

    Attributes:
        table: Module name of the table.
    """

    table: str

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return 0


LayerSpec = KroneckerSpec | LowRankSpec | BlockSpec | TuckerSpec | BankSpec | EmbeddingSpec | HeadSpec
