"""QuantGPT and QuantBART: Tao et al., Compression of Generative Pre-trained Language Models via Quantization, ACL 2022.

The student is the quantized teacher, whole. Every weight matrix has one scale and every row of the vocabulary its own;
the teacher's logits are distilled, and a contrastive loss tells each token from the others of its sequence. The
baselines PACT, LSQ and LAQ are this family with another quantizer, as the paper compares them.
"""

from __future__ import annotations

from edgeq.errors import UsageError
from edgeq.formats.tasks import TASKS
from edgeq.models import ModelAdapter
from edgeq.recipes.schema import Recipe

QUANTIZERS = ("module-scaling", "pact", "lsq", "lsq-symmetric", "laq")


def check(recipe: Recipe, adapter: ModelAdapter) -> None:
    """Checks a recipe of the family.

    Raises:
        UsageError: If the model does not generate text, or the recipe departs from what makes the method.
    """
    if not TASKS[adapter.task].generates:
        raise UsageError(
            f"recipe {recipe.name!r} is for models that generate text, and {adapter.architecture} does not; "
            "use a recipe of the families xtc or two-stage"
        )
    for section in (recipe.weights, recipe.embeddings):
        if section.quantizer not in QUANTIZERS:
            raise UsageError(
                f"recipe {recipe.name!r} of family quantgpt has one of the quantizers {', '.join(QUANTIZERS)}, "
                f'found {section.quantizer!r}; set family = "own" for others'
            )
    if recipe.layers is not None or recipe.distill is None or recipe.distill.logits == 0:
        raise UsageError(
            f"recipe {recipe.name!r} of family quantgpt keeps all layers and distils logits; "
            'set family = "own" for other students'
        )
