"""Two-stage progressive quantization: Le et al., Efficient Two-Stage Progressive Quantization of BERT, SustaiNLP 2022.

Stage 1 lowers the bits of the weights step by step while activations stay float; stage 2 quantizes the activations
as well. Each step is a ``[[stage]]`` of the recipe, which says at which bit width it trains, whose weights it starts
from, and whether it sees augmented data.
"""

from __future__ import annotations

from itertools import pairwise

from edgeq.errors import UsageError
from edgeq.formats.tasks import TASKS
from edgeq.models import ModelAdapter
from edgeq.recipes.schema import Recipe


def check(recipe: Recipe, adapter: ModelAdapter) -> None:
    """Checks a recipe of the family.

    Raises:
        UsageError: If the model is no encoder, or the recipe departs from what makes the method.
    """
    if TASKS[adapter.task].generates:
        raise UsageError(
            f"recipe {recipe.name!r} is for BERT, found {adapter.architecture}; use a recipe of the family quantgpt"
        )
    bits = [stage.bits or recipe.weights.bits for stage in recipe.stage]
    if any(later > earlier for earlier, later in pairwise(bits)):
        raise UsageError(
            f"recipe {recipe.name!r} of family two-stage lowers the bits from stage to stage, found "
            f"{', '.join(map(str, bits))}"
        )
    activations = [stage.activations for stage in recipe.stage]
    if not recipe.stage or activations != sorted(activations) or activations[0]:
        raise UsageError(
            f"recipe {recipe.name!r} of family two-stage begins with float activations and ends with quantized ones"
        )
