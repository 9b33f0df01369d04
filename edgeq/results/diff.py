"""What ``edgeq diff`` found: layer by layer, in every backend."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from edgeq.results.base import WITH_DERIVED, Result

Part = Literal["layer", "before"]
"""The layer itself, or the operators between it and the layers before it."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that is judged, in the order of the graph; ``within`` is written as well.

    Attributes:
        name: Module name of the layer.
        part: ``layer`` for the layer itself, ``before`` for the operators between it and the layers before it.
        operators: The operators that it consists of.
        error: Largest isolated error over its bound; None for results that are no numbers.
        moved: Accumulated difference over the size of the values, both as root mean squares.
        limit: What ``moved`` may be.
    """

    name: str
    part: Part
    operators: tuple[str, ...]
    error: float | None
    moved: float
    limit: float

    __pydantic_config__ = WITH_DERIVED
    derived: ClassVar[tuple[str, ...]] = ("within",)

    @property
    def is_right_alone(self) -> bool:
        """Whether it is within its bound on the reference's own input."""
        return self.error is not None and self.error <= 1

    @property
    def within(self) -> bool:
        """Whether it is right alone, and within its envelope with all that is before it."""
        return self.is_right_alone and self.moved <= self.limit


@dataclasses.dataclass(frozen=True)
class BackendDiff:
    """What one backend made of every layer; ``within`` and ``first`` are written as well.

    Attributes:
        backend: One of :data:`edgeq.parity.diff.backends.BACKENDS`.
        steps: In the order of the graph.
    """

    backend: str
    steps: tuple[Step, ...]

    __pydantic_config__ = WITH_DERIVED
    derived: ClassVar[tuple[str, ...]] = ("within", "first")

    @property
    def first(self) -> Step | None:
        """The first step that leaves its envelope: the search for a fault begins with it. None where none does."""
        return next((step for step in self.steps if not step.within), None)

    @property
    def within(self) -> bool:
        """Whether no step leaves its envelope."""
        return self.first is None


@dataclasses.dataclass(frozen=True)
class DiffReport(Result):
    """What ``edgeq diff --json`` prints: every backend of a run; ``within`` is written as well."""

    format: Literal["edgeq-diff"] = dataclasses.field(default="edgeq-diff", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = WITH_DERIVED
    derived: ClassVar[tuple[str, ...]] = ("within",)

    run: str
    backends: tuple[BackendDiff, ...]

    @property
    def within(self) -> bool:
        """Whether every backend is within the envelope of every layer."""
        return all(each.within for each in self.backends)
