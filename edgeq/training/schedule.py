"""The learning rate within a stage: a linear rise, then a fall."""

from __future__ import annotations

import math

from edgeq.training.settings import ScheduleName


def rate_factor(step: int, *, steps: int, warmup: float, schedule: ScheduleName) -> float:
    """Returns what the peak of the learning rate is multiplied with in a step.

    Args:
        step: The step within the stage, counted from 0.
        steps: Steps of the stage.
        warmup: Part of them in which the rate rises.
        schedule: How it falls to zero afterwards; ``constant`` does not.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    left = (steps - step) / (steps - rising)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
