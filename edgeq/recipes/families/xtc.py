"""XTC: Wu et al., Extreme Compression for Pre-trained Transformers Made Simple and Efficient, NeurIPS 2022.

The student is some blocks of the fine-tuned teacher. In the released scripts it is first trained in float, by one stage
of distillation (recipes ``xtc-l3``, ``xtc-l5``, ``xtc-l6``). From there (``--start-from`` the first run), weights are
made binary or ternary, and logits, hidden states and attention are distilled in one long stage, quantized from its
first step. The first run may be skipped, for half of the training. Gradients pass the rounding as they are.
"""

from __future__ import annotations

from edgeq.errors import UsageError
from edgeq.formats.tasks import TASKS
from edgeq.models import ModelAdapter
from edgeq.recipes.schema import Recipe

QUANTIZERS = ("bwn", "twn")


def check(recipe: Recipe, adapter: ModelAdapter) -> None:
    """Checks a recipe of the family.

    Raises:
        UsageError: If the model is no encoder, or the recipe departs from what makes the method.
    """
    if TASKS[adapter.task].generates:
        raise UsageError(
            f"recipe {recipe.name!r} is for BERT, found {adapter.architecture}; use a recipe of the family quantgpt"
        )
    for section in (recipe.weights, recipe.embeddings):
        if section.bits and (section.quantizer not in QUANTIZERS or section.gradient not in ("method", "identity")):
            raise UsageError(
                f"recipe {recipe.name!r} of family xtc has the quantizers bwn or twn with the gradient identity, "
                f'found {section.quantizer!r} with {section.gradient!r}; set family = "own" for others'
            )
    if len(recipe.stage) > 1:
        raise UsageError(
            f"recipe {recipe.name!r} of family xtc trains in a single stage, found {len(recipe.stage)}; "
            'set family = "own" for more'
        )
