"""What was measured in a training, and which of two models is better by it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

LESS_IS_BETTER = "perplexity"


def figures_of(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns figures that a file holds, where null stands for a perplexity beyond all numbers."""
    return {name: math.inf if value is None else value for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        metric: The figure by which models are compared, such as ``accuracy``, ``spearman`` or ``perplexity``.
        values: All figures by name.
    """

    metric: str
    values: dict[str, float]

    @property
    def value(self) -> float:
        """The figure by which models are compared."""
        return self.values[self.metric]

    def better_than(self, other: float | None) -> bool:
        """Tells whether the value is better than another one of the same metric; any number beats None."""
        if math.isnan(self.value):
            return False
        if other is None:
            return True
        return self.value < other if self.metric == LESS_IS_BETTER else self.value > other
