"""From the tables of a recipe to the settings of training and distillation."""

from __future__ import annotations

from collections.abc import Mapping

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.errors import UsageError, nearest_name_hint
from edgeq.models import ModelAdapter
from edgeq.recipes.schema import Recipe
from edgeq.recipes.training_sections import DistillSection, StageSection
from edgeq.training.settings import StageSettings, TrainingSettings

LOWEST_BITS = 1
"""Asking a layer for fewer bits than it is to end with gives it the bits that it is to end with."""


def objective_settings(section: DistillSection | None) -> ObjectiveSettings:
    """Returns the losses of a recipe; without ``[distill]``, the teacher's logits."""
    section = section or DistillSection()
    values = section.model_dump(exclude={"contrastive"})
    if section.contrastive is None:
        return ObjectiveSettings(**values)
    return ObjectiveSettings(
        **values,
        contrastive=section.contrastive.weight,
        contrastive_temperature=section.contrastive.temperature,
        contrastive_momentum=section.contrastive.momentum,
        contrastive_negatives=section.contrastive.negatives,
    )


def objectives(
    recipe: Recipe,
    *,
    student: ModelAdapter,
    teacher: ModelAdapter,
    kept: Mapping[str, tuple[int, ...]],
) -> dict[str, Objective]:
    """Makes the losses of each stage, by its name.

    Args:
        recipe: A recipe that trains.
        student: Adapter of the student.
        teacher: Adapter of the teacher.
        kept: For each stack by name, the teacher's layer of each of the student's.

    Raises:
        UsageError: If student and teacher do not match.
    """
    wanted = {stage.name: stage.distill or recipe.distill for stage in recipe.stage}
    sections = wanted or {StageSettings().name: recipe.distill}
    return {
        name: Objective(objective_settings(section), student=student, teacher=teacher, kept=kept)
        for name, section in sections.items()
    }


def training_settings(
    recipe: Recipe, *, epochs: float | None = None, budget: str | None = None, seed: int = 0
) -> TrainingSettings:
    """Returns the settings of a recipe's run.

    Args:
        recipe: A recipe that trains.
        epochs: Instead of the recipe's.
        budget: Name of one of the recipe's budgets, whose epochs count; not together with ``epochs``.
        seed: Of the run.

    Raises:
        UsageError: If the recipe does not train or has no such budget, or a number makes no sense.
    """
    section = recipe.training
    if section is None:
        raise UsageError(f"recipe {recipe.name!r} does not train; leave training data and epochs out")
    if budget is not None:
        if epochs is not None:
            raise UsageError("give either a number of epochs or a budget, not both")
        if budget not in section.budgets:
            hint = nearest_name_hint(budget, list(section.budgets))
            known = ", ".join(section.budgets) or "none"
            raise UsageError(f"recipe {recipe.name!r} has no budget {budget!r}{hint}; known are {known}")
        epochs = section.budgets[budget]
    values = section.model_dump(exclude={"epochs", "budgets"})
    stages = _stages(recipe.stage)
    return TrainingSettings(**values, epochs=epochs or section.epochs, seed=seed, stages=stages)


def _stages(sections: tuple[StageSection, ...]) -> tuple[StageSettings, ...]:
    if not sections:
        return (StageSettings(),)
    return tuple(
        StageSettings(
            name=section.name,
            share=section.share,
            bits=section.bits or LOWEST_BITS,
            activations=section.activations,
            initialise_from=section.initialise_from,
            augmented=section.augment,
            learning_rate=section.learning_rate,
        )
        for section in sections
    )
