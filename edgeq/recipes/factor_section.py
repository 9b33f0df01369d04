"""The table ``[factor]`` of a recipe: which matrices become products of smaller ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from edgeq.factor.cost import Evaluate
from edgeq.factor.kinds import METHODS, FactorSettings
from edgeq.factor.matrices import ROLES, Role
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


def own_options(methods: Iterable[type[FactorSettings]]) -> dict[str, Any]:
    """Returns the keys that single methods add to the table, as fields of its class."""
    return {key: option for method in methods for key, option in method.own_options.items()}


_OWN_OPTIONS = own_options(METHODS.values())
_OwnOptions: Any = pydantic.create_model("_OwnOptions", __base__=Section, **_OWN_OPTIONS)


class FactorSection(_OwnOptions):
    """Factorised layers, made before anything is quantized; ``[weights]`` then says how the factors are stored.

    Attributes:
        method: One of :data:`edgeq.factor.kinds.METHODS`.
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
            matmul less.
    """

    added_keys: ClassVar[frozenset[str]] = frozenset(_OWN_OPTIONS)

    method: str
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

    @pydantic.field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"methods are {', '.join(METHODS)}; found {method!r}")
        return method

    @pydantic.model_validator(mode="after")
    def _check(self) -> FactorSection:
        own = METHODS[self.method]
        taken = {"method", "evaluate", *own.options, *own.own_options}
        for key, field in type(self).model_fields.items():
            if key not in taken and getattr(self, key) != field.default:
                takers = " and ".join(
                    name for name, method in METHODS.items() if key in (*method.options, *method.own_options)
                )
                raise ValueError(f"{key} is for {takers}, found it with {self.method}")
        if self.evaluate not in METHODS[self.method].evaluations:
            takers = " and ".join(name for name, method in METHODS.items() if self.evaluate in method.evaluations)
            raise ValueError(f"evaluate = {self.evaluate!r} is for {takers}")
        self.settings()
        return self

    def settings(self) -> FactorSettings:
        """Returns what ``edgeq.factor`` is to do."""
        return METHODS[self.method].from_options(self)
