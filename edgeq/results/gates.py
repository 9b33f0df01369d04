"""Gates: limits that a user gives a run."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeq.results.base import STRICT

LossEnd = Literal["interval", "middle"]
"""Which loss a gate looks at: the end of the 95% interval that is worse for the model, or the measured value."""
_POINT = 0.01
_PERPLEXITY = "perplexity"


@dataclasses.dataclass(frozen=True)
class LossLimit:
    """The largest loss of the metric.

    Attributes:
        amount: A number above or equal to 0.
        relative: Whether it is per cent of the float model's value; otherwise it is points: hundredths of an accuracy
            or a correlation, units of a perplexity.
        end: Which loss must stay below it.
    """

    amount: float
    relative: bool
    end: LossEnd

    __pydantic_config__ = STRICT

    def largest(self, metric: str, reference: float) -> float:
        """Returns the largest loss in units of the metric, the float model's value being ``reference``."""
        if self.relative:
            return self.amount / 100.0 * abs(reference)
        return self.amount if metric == _PERPLEXITY else self.amount * _POINT

    def __str__(self) -> str:
        if self.relative:
            return f"{self.amount:g}% of the float model"
        return f"{self.amount:g} {'point' if self.amount == 1 else 'points'}"


@dataclasses.dataclass(frozen=True)
class Gates:
    """Limits of a run; None for no limit.

    Attributes:
        max_loss: Of every stage's loss against the float model.
        max_bytes: Of every bundle's weights as stored.
        max_ms: Of the median latency of every bundle that was timed, in milliseconds.
    """

    max_loss: LossLimit | None = None
    max_bytes: int | None = None
    max_ms: float | None = None

    __pydantic_config__ = STRICT

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self != Gates()
