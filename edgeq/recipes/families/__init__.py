"""The published methods that recipes follow, one file each: what a recipe must say to bear the method's name."""

from __future__ import annotations

from collections.abc import Callable

from edgeq.models import ModelAdapter
from edgeq.recipes.families import quantgpt, two_stage, xtc
from edgeq.recipes.schema import FamilyName, Recipe

_CHECKS: dict[FamilyName, Callable[[Recipe, ModelAdapter], None]] = {
    "quantgpt": quantgpt.check,
    "xtc": xtc.check,
    "two-stage": two_stage.check,
}


def check_family(recipe: Recipe, adapter: ModelAdapter) -> None:
    """Checks that a recipe keeps to the method whose name it bears, and that the model is one the method is for.

    Raises:
        UsageError: If it does not; ``family = "own"`` lifts the rules.
    """
    if recipe.family in _CHECKS:
        _CHECKS[recipe.family](recipe, adapter)
