"""From the tables of a recipe to the settings of training and distillation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgeq.distill import Objective, ObjectiveSettings
from edgeq.errors import UsageError, nearest_name_hint
from edgeq.models import ModelAdapter
from edgeq.recipes.schema import PRETRAINING, Recipe
from edgeq.recipes.training_sections import DistillSection, PretrainingSection, StageSection
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
    pretraining: bool = False,
) -> dict[str, Objective]:
    """Makes the losses of each stage, by its name.

    Args:
        recipe: A recipe that trains.
        student: Adapter of the student.
        teacher: Adapter of the teacher.
        kept: For each stack by name, the teacher's layer of each of the student's.
        pretraining: Whether there is a stage on texts without labels before the others.

    Raises:
        UsageError: If student and teacher do not match.
    """
    wanted = {stage.name: stage.distill or recipe.distill for stage in recipe.stage}
    sections = wanted or {StageSettings().name: recipe.distill}
    settings = {name: objective_settings(section) for name, section in sections.items()}
    if pretraining:
        settings[PRETRAINING] = _pretraining_losses(recipe, next(iter(settings.values())), student)
    return {
        name: Objective(losses, student=student, teacher=teacher, kept=kept) for name, losses in settings.items()
    }


def _pretraining_losses(recipe: Recipe, first: ObjectiveSettings, student: ModelAdapter) -> ObjectiveSettings:
    """The losses of ``[pretraining]``, or those of the first stage as far as they need no labels."""
    own = recipe.pretraining.distill if recipe.pretraining is not None else None
    # The labels of a language model are the next words, which every text has.
    has_labels = student.task == "generate"
    if own is not None:
        if own.labels and not has_labels:
            raise UsageError(
                f"recipe {recipe.name!r}: pretraining.distill.labels should be 0, found {own.labels:g}; the texts that "
                f"a {student.architecture} pre-trains on have no labels"
            )
        return objective_settings(own)
    if not first.needs_teacher and not has_labels:
        raise UsageError(
            f"recipe {recipe.name!r} learns from labels alone, and texts to pre-train on have none; leave "
            "--pretrain-data out, or give the recipe [pretraining.distill]"
        )
    return first if has_labels else dataclasses.replace(first, labels=0.0)


def training_settings(
    recipe: Recipe,
    *,
    epochs: float | None = None,
    budget: str | None = None,
    seed: int = 0,
    pretraining: bool = False,
) -> TrainingSettings:
    """Returns the settings of a recipe's run.

    Args:
        recipe: A recipe that trains.
        epochs: Instead of the recipe's.
        budget: Name of one of the recipe's budgets, whose epochs count; not together with ``epochs``.
        seed: Of the run.
        pretraining: Whether a stage on texts without labels comes before the others.

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
            raise UsageError(f"recipe {recipe.name!r} has no budget {budget!r}{hint} (known: {known})")
        epochs = section.budgets[budget]
    values = section.model_dump(exclude={"epochs", "budgets"})
    stages = _stages(recipe.stage)
    if pretraining:
        own = recipe.pretraining or PretrainingSection()
        first = dataclasses.replace(
            stages[0],
            name=PRETRAINING,
            initialise_from=None,
            augmented=False,
            learning_rate=own.learning_rate,
            schedule=None,
            warmup=None,
            pretraining_epochs=own.epochs,
        )
        stages = (first, *stages)
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
            schedule=section.schedule,
            warmup=section.warmup,
        )
        for section in sections
    )
