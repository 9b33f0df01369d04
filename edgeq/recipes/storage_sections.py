"""Tables of a recipe that say how weights and activations are stored."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import pydantic

from edgeq.errors import UsageError
from edgeq.quant.grids import Grid, GridName, grid_for
from edgeq.quant.plan import GradientName, StaticMethod
from edgeq.quant.quantizers import QUANTIZERS
from edgeq.quant.scale_search import SearchMethod
from edgeq.recipes.section import Section

ScaleGranularity = Literal["row", "matrix"]


def _known_quantizer(name: str) -> str:
    if name not in QUANTIZERS:
        raise ValueError(f"quantizers are {', '.join(sorted(QUANTIZERS))}; found {name!r}")
    return name


QuantizerName = Annotated[str, pydantic.AfterValidator(_known_quantizer)]
"""One of :data:`edgeq.quant.quantizers.QUANTIZERS`."""


def _checked_grid(bits: int, name: GridName | None) -> Grid:
    try:
        return grid_for(bits, name)
    except UsageError as error:  # pydantic reports a ValueError together with the key it belongs to
        raise ValueError(str(error)) from error


class _MatrixSection(Section):
    bits: int
    scale: ScaleGranularity = "row"
    grid: GridName | None = None
    search: SearchMethod = "mse"
    quantizer: QuantizerName | None = None
    gradient: GradientName = "method"
    start: Literal["method", "error"] | Annotated[float, pydantic.Field(gt=0)] = "method"

    added_keys: ClassVar[frozenset[str]] = frozenset({"start"})

    @pydantic.model_validator(mode="after")
    def _check(self) -> _MatrixSection:
        if self.bits != 0:
            _checked_grid(self.bits, self.grid)
        elif self.grid is not None or self.quantizer is not None:
            raise ValueError("float weights (bits = 0) have no grid and no quantizer")
        if self.start != "method" and self.quantizer is None:
            raise ValueError("start is for a quantizer that learns something; give the quantizer")
        return self


class WeightSection(_MatrixSection):
    """Weights of linear layers.

    Attributes:
        bits: Bits of one code: 1, 2, 4, 7 or 8; 0 keeps them in float. Codes of 7 bits are stored in 8, and are for
            recipes that do not train.
        scale: One scale a row (output feature), or one for the matrix.
        grid: Levels; where left out, the first of the bit width (ternary for 2 bits).
        search: ``mse`` for the least squared rounding error, ``max`` to keep the largest weight exact; of
            recipes that do not train.
        quantizer: How weights are rounded while the model is trained; of recipes that train.
        gradient: How the gradient passes the rounding: the quantizer's own way (``method``), ``identity``,
            ``clipped``, or ``pact``: as ``clipped``, and the quantizer learns from clipped weights alone.
        start: Where what the quantizer learns starts: where its ``method`` says, at the least squared rounding
            ``error``, or with the largest level at this many times the mean magnitude of the weights.
    """


class EmbeddingSection(_MatrixSection):
    """Embedding tables; the keys are those of ``[weights]``."""


class ActivationSection(Section):
    """Inputs of linear layers, and what attention multiplies.

    Attributes:
        mode: ``dynamic``: int8 with one scale a token; ``static``: int8 with one learned scale a layer, of
            recipes that train; ``none``: float.
        quantizer: How a static scale is learned: ``lsq`` or ``pact``.
        attention: ``int8``: queries, keys, values and the weights of values are rounded to int8 as well, one scale a
            token and head; ``float``: they are not.
    """

    added_keys: ClassVar[frozenset[str]] = frozenset({"attention"})

    mode: Literal["dynamic", "static", "none"] = "dynamic"
    quantizer: StaticMethod | None = None
    attention: Literal["float", "int8"] = "float"

    @pydantic.model_validator(mode="after")
    def _check(self) -> ActivationSection:
        if (self.mode == "static") != (self.quantizer is not None):
            raise ValueError('mode = "static" goes with quantizer = "lsq" or "pact", other modes without one')
        if self.attention == "int8" and self.mode == "none":
            raise ValueError('attention = "int8" goes with int8 inputs of linear layers, mode = "dynamic" or "static"')
        return self


class OverrideSection(Section):
    """An exception for the layers whose whole name matches ``pattern``; the last match counts.

    Attributes:
        pattern: Regular expression.
        bits: Bits of the weights of these layers.
        grid: Levels, as in ``[weights]``.
        quantizer: As in ``[weights]``; where left out, the section's own at the section's bits, and the plain one
            of the width at others.
        keep_float: Leave these layers in float.
        reason: Why; needed with ``keep_float``.
    """

    pattern: str
    bits: int | None = None
    grid: GridName | None = None
    quantizer: QuantizerName | None = None
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
