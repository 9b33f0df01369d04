"""The table ``[factor]`` of a recipe: which matrices become products of smaller ones."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from edgeq.factor.settings import (
    ROLES,
    FactorSettings,
    KroneckerSettings,
    KroneckerShape,
    LowRankSettings,
    Role,
    TuckerSettings,
)
from edgeq.factor.specs import Evaluate
from edgeq.recipes.section import Section

Size = Annotated[int, pydantic.Field(ge=1)]
Index = Annotated[int, pydantic.Field(ge=0)]


class ShapeSection(Section):
    """Kronecker factors of the matrices of one role; one of the two shapes, as (rows, columns).

    Attributes:
        right: Shape of the right factor.
        left: Shape of the left factor.
        terms: Products in the sum.
    """

    right: tuple[Size, Size] | None = None
    left: tuple[Size, Size] | None = None
    terms: Size = 1

    @pydantic.model_validator(mode="after")
    def _check(self) -> ShapeSection:
        if (self.right is None) == (self.left is None):
            raise ValueError("give the shape of either the left or the right factor; the other one follows")
        return self


class FactorSection(Section):
    """Factorised layers, made before anything is quantized; ``[weights]`` then says how the factors are stored.

    Attributes:
        method: ``kronecker``, ``tucker`` or ``low-rank``.
        blocks: Blocks that are factorised: ``all``, ``odd`` or ``even`` ones, or a list, counted from 0. A Tucker
            bank serves all.
        attention: Kronecker factors of the square matrices (GPT-2's queries, keys and values are three).
        expand: Kronecker factors of the widening matrices of feed-forward layers.
        contract: Kronecker factors of the narrowing ones.
        embedding_factor: Numbers of a vocabulary row that one stored number becomes; 1 leaves the table alone.
        rank: Size of the state between factors, for ``tucker`` and ``low-rank``.
        bank: Core matrices that all slices share (IV of the Tucker paper); 0 gives each its own (III).
        sliced: ``low-rank`` of square slices with a core in between (II of the Tucker paper).
        roles: Which matrices ``tucker`` and ``low-rank`` take.
        evaluate: How layers are computed: ``auto`` for what costs least, or ``factored``, ``up``, ``down``, ``dense``.
        fold: Store (and train, and pack) each core multiplied into the outer factor next to it: more bytes, one
            product less.
    """

    method: Literal["kronecker", "tucker", "low-rank"]
    blocks: Literal["all", "odd", "even"] | tuple[Index, ...] = "all"
    attention: ShapeSection | None = None
    expand: ShapeSection | None = None
    contract: ShapeSection | None = None
    embedding_factor: Size = 1
    rank: Size | None = None
    bank: Index = 0
    sliced: bool = False
    roles: tuple[Role, ...] = ROLES
    evaluate: Evaluate = "auto"
    fold: bool = False

    @pydantic.model_validator(mode="after")
    def _check(self) -> FactorSection:
        shapes = [role for role in ROLES if getattr(self, role) is not None]
        if self.method == "kronecker":
            if not shapes and self.embedding_factor == 1:
                raise ValueError("kronecker needs a shape for attention, expand or contract, or an embedding_factor")
            _only_for(self, "tucker and low-rank", rank=None, roles=ROLES)
        elif self.rank is None:
            raise ValueError(f"{self.method} needs a rank")
        else:
            _only_for(self, "kronecker", attention=None, expand=None, contract=None, embedding_factor=1)
        if self.method != "tucker":
            _only_for(self, "tucker", bank=0, fold=False)
            if self.evaluate in ("up", "down"):
                raise ValueError(f"evaluate = {self.evaluate!r} is for tucker")
        elif self.blocks != "all":
            raise ValueError("a Tucker bank serves all blocks; leave blocks out")
        if self.method != "low-rank":
            _only_for(self, "low-rank", sliced=False)
        return self

    def settings(self) -> FactorSettings:
        """Returns what ``edgeq.factor`` is to do."""
        if self.method == "tucker":
            return TuckerSettings(self.rank or 0, self.bank, self.roles)
        if self.method == "low-rank":
            return LowRankSettings(self.rank or 0, self.sliced, self.blocks, self.roles)
        shapes: dict[Role, KroneckerShape] = {}
        for role in ROLES:
            section: ShapeSection | None = getattr(self, role)
            if section is not None:
                shapes[role] = KroneckerShape(section.right, section.left, section.terms)
        return KroneckerSettings(shapes, self.blocks, self.embedding_factor)


def _only_for(section: FactorSection, method: str, **defaults: object) -> None:
    for key, default in defaults.items():
        if getattr(section, key) != default:
            raise ValueError(f"{key} is for {method}, found it with {section.method}")
