"""Learning rate: warm-up, then constant, then a cosine to nearly nothing at the end of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A warm-up/stable/decay schedule.

    Until the decay begins, the rate does not depend on ``steps``: a run may be stopped there and resumed
    with fewer or more steps, and is then the same run as one started with that number.

    Attributes:
        peak: Rate of the constant part.
        warmup: Steps of the linear rise.
        steps: All steps of the run.
        decay: Part of ``steps``, 0 to 1, that the fall takes.
    """

    peak: float
    warmup: int
    steps: int
    decay: float

    @property
    def decay_start(self) -> int:
        """The first step whose rate depends on ``steps``."""
        return self.steps - round(self.steps * self.decay)

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, the first of which is 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if step < self.decay_start:
            return self.peak
        done = (step - self.decay_start + 1) / (self.steps - self.decay_start + 1)
        return self.peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
