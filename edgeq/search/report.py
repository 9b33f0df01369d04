"""What a search came to (``search.json``): candidates, the best of them, and what is promised of it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeq.results.base import STRICT, Result

MethodSet = Literal["nearest", "error-feedback", "distill"]
"""Methods of calibration by the most thorough one."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """The shapes of a model.

    Attributes:
        blocks: Blocks that are kept of each stack's first to last, evenly spaced; 0 keeps all.
        factor: ``none``, or a name in :data:`edgeq.search.space.FACTORS` and the blocks that it is for, such as
            ``low-rank, odd``.
        pruned: Whether tokens outside of the corpus are left out.
    """

    blocks: int = 0
    factor: str = "none"
    pruned: bool = False

    __pydantic_config__ = STRICT

    @property
    def label(self) -> str:
        """A name for files: ``all``, or what differs from the float model."""
        parts = [f"{self.blocks}-blocks"] if self.blocks else []
        parts += [] if self.factor == "none" else [self.factor.replace(", ", "-")]
        parts += ["pruned"] if self.pruned else []
        return "-".join(parts) or "all"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One width of a layer.

    Attributes:
        bits: Bits of one code.
        bytes: Codes, padding and scales as stored.
        error: How far the model's output moves with this layer alone rounded, as :mod:`edgeq.search.sensitivity` says.
    """

    bits: int
    bytes: int
    error: float

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class SearchLayer:
    """A layer whose width is searched.

    Attributes:
        name: Module name.
        kind: ``linear`` or ``embedding``.
        choices: Its widths, the narrowest first.
    """

    name: str
    kind: str
    choices: tuple[Choice, ...]

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Latency:
    """What one call of a model takes.

    Attributes:
        milliseconds: Median of the calls, or the estimate.
        how: ``measured here``, ``measured on ssh://...``, or ``ESTIMATE for NAME, not measured``.
    """

    milliseconds: float
    how: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Bytes of a choice of widths, and the sum of how far each layer, rounded alone, moves the output."""

    bytes: int
    error: float

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Measured:
    """A candidate that was made and measured, as the study keeps it.

    Attributes:
        method: Method of calibration.
        recipe: Text of its recipe.
        metric: What was measured.
        value: The figure on the half that the search chooses by.
        bytes: Weights as stored.
        share: Share of the budget of bytes that it was allowed.
        structure: Its shapes.
        widths: Bits by name of the layer.
        predicted: What was predicted of these widths.
        latency: What one call takes; None where latency is not asked for.
    """

    method: MethodSet
    recipe: str
    metric: str
    value: float
    bytes: int
    share: float
    structure: Structure
    widths: dict[str, int]
    predicted: Predicted
    latency: Latency | None

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Tried:
    """A measured candidate in its folder.

    Attributes:
        number: Its number in the study.
        on_front: Whether no other one is better in everything.
        file: Its recipe, relative to the search's folder.
        checkpoint: Its checkpoint, likewise.
        found: What was measured.
    """

    number: int
    on_front: bool
    file: str
    checkpoint: str
    found: Measured

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Refused:
    """A candidate that was not measured, with the reason."""

    number: int
    choices: dict[str, str | bool | int | float]
    reason: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class StudyState:
    """How far a study is.

    Attributes:
        name: Its name.
        storage: Where it lies.
        candidates: How many were measured.
        asked: How many were asked for.
        refused: Those that were not measured.
        interrupted: Whether candidates are left that were to be tried.
    """

    name: str
    storage: str
    candidates: int
    asked: int
    refused: tuple[Refused, ...]
    interrupted: bool

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Promise:
    """What the best candidate is worth on data that the search did not see.

    Attributes:
        metric: What was measured.
        examples: On how many examples.
        reference: Value of the float model.
        value: Value of the candidate.
        loss: What it loses.
        low: Lower end of the loss's 95% interval.
        high: Upper end.
        limit: The largest loss that was allowed, in words; None without a limit.
        kept: Whether the limit is kept; True without one.
    """

    metric: str
    examples: int
    reference: float
    value: float
    loss: float
    low: float
    high: float
    limit: str | None
    kept: bool

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class SearchReport:
    """What a search came to.

    Attributes:
        source: The float checkpoint as the user named it.
        budget: Bytes that the weights may take.
        max_ms: Milliseconds that a call may take; None for no limit.
        best: Number of the candidate whose recipe is ``recipe.toml``.
        tried: Every candidate that was measured.
        layers: Layers of the best one's shapes, with what each width costs.
        front: The best choices of widths for every size, as predicted.
        study: How far the study is.
        promise: What the best one is worth on other data.
    """

    source: str
    budget: int
    max_ms: float | None
    best: int
    tried: tuple[Tried, ...]
    layers: tuple[SearchLayer, ...]
    front: tuple[Predicted, ...]
    study: StudyState
    promise: Promise

    __pydantic_config__ = STRICT

    @property
    def chosen(self) -> Tried:
        """The best candidate."""
        return next(one for one in self.tried if one.number == self.best)


@dataclasses.dataclass(frozen=True)
class SearchRecord(Result):
    """``search.json``: what the folder is a search of, and what it came to; None until a search has ended."""

    format: Literal["edgeq-search"] = dataclasses.field(default="edgeq-search", kw_only=True)
    version: Literal[2] = dataclasses.field(default=2, kw_only=True)
    __pydantic_config__ = STRICT
    fix = "search in a new folder"

    identity: str
    report: SearchReport | None = None
