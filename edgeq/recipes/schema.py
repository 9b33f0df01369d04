"""What a recipe file may say."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal

import pydantic

from edgeq.errors import UsageError
from edgeq.quant.grids import Grid, GridName, grid_for
from edgeq.quant.scale_search import SearchMethod

ScaleGranularity = Literal["row", "matrix"]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def _checked_grid(bits: int, name: GridName | None) -> Grid:
    try:
        return grid_for(bits, name)
    except UsageError as error:  # pydantic reports a ValueError together with the key it belongs to
        raise ValueError(str(error)) from error


class WeightSection(_Section):
    """Weights of linear layers.

    Attributes:
        bits: Bits of one code: 1, 2, 4 or 8.
        scale: One scale a row (output feature), or one for the matrix.
        grid: Levels; where left out, the first of the bit width (ternary for 2 bits).
        search: ``mse`` for the least squared rounding error, ``max`` to keep the largest weight exact.
    """

    bits: int
    scale: ScaleGranularity = "row"
    grid: GridName | None = None
    search: SearchMethod = "mse"

    @pydantic.model_validator(mode="after")
    def _check(self) -> WeightSection:
        _checked_grid(self.bits, self.grid)
        return self


class ActivationSection(_Section):
    """Inputs of linear layers: ``dynamic`` int8 with one scale a token, or ``none`` (float)."""

    mode: Literal["dynamic", "none"] = "dynamic"


class EmbeddingSection(_Section):
    """Embedding tables; ``bits = 0`` keeps them in float."""

    bits: int
    scale: ScaleGranularity = "row"
    grid: GridName | None = None
    search: SearchMethod = "mse"

    @pydantic.model_validator(mode="after")
    def _check(self) -> EmbeddingSection:
        if self.bits != 0:
            _checked_grid(self.bits, self.grid)
        elif self.grid is not None:
            raise ValueError("float embeddings (bits = 0) have no grid")
        return self


class OverrideSection(_Section):
    """An exception for the layers whose whole name matches ``pattern``; the last match counts.

    Attributes:
        pattern: Regular expression.
        bits: Bits of the weights of these layers.
        grid: Levels, as in ``[weights]``.
        keep_float: Leave these layers in float.
        reason: Why; needed with ``keep_float``.
    """

    pattern: str
    bits: int | None = None
    grid: GridName | None = None
    keep_float: bool = False
    reason: str | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> OverrideSection:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
        if self.keep_float == (self.bits is not None):
            raise ValueError("an override gives either bits or keep_float = true")
        if self.keep_float and not (self.reason or "").strip():
            raise ValueError("keep_float needs a reason, which reports will show")
        if self.bits is not None:
            _checked_grid(self.bits, self.grid)
        return self

    def matches(self, name: str) -> bool:
        """Tells whether the override is for the module ``name``."""
        return re.fullmatch(self.pattern, name) is not None


class Recipe(_Section):
    """A way to compress a model.

    Attributes:
        name: Name of the recipe.
        summary: Its meaning in one line.
        weights: How linear layers are stored.
        activations: How their inputs are quantized.
        embeddings: How embedding tables are stored.
        override: Exceptions by layer name.
    """

    name: str
    summary: str
    weights: WeightSection
    activations: ActivationSection = ActivationSection()
    embeddings: EmbeddingSection
    override: tuple[OverrideSection, ...] = ()

    @property
    def sha256(self) -> str:
        """Digest of what the recipe says; comments and the order of keys do not change it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()
