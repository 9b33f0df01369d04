"""Where a stage lies in its training: which steps of the order of examples, and of the learning rate, are its own."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgeq.errors import UsageError
from edgeq.training.batches import BatchOrder
from edgeq.training.data import TaskData
from edgeq.training.examples import ExampleSet, joined
from edgeq.training.schedule import rate_factor
from edgeq.training.settings import StageSettings, TrainingSettings


@dataclasses.dataclass(frozen=True)
class StagePlace:
    """The examples of a stage in their order, and its part of the training.

    Attributes:
        examples: What it reads.
        order: The order of the batches.
        steps: Its number of steps.
        first_batch: Batch of the order that its first step reads.
        rate_offset: Steps of the schedule before its first one.
        rate_steps: Steps of the whole schedule.
    """

    examples: ExampleSet
    order: BatchOrder
    steps: int
    first_batch: int
    rate_offset: int
    rate_steps: int

    def batch(self, step: int) -> np.ndarray:
        """Returns the numbers of the examples of a step of the stage, int64 ``[batch]``."""
        return self.order.at(self.first_batch + step)

    def rate_factor(self, step: int, run: TrainingSettings, stage: StageSettings) -> float:
        """Returns what the peak of the learning rate is multiplied with in a step of the stage."""
        return rate_factor(
            self.rate_offset + step,
            steps=self.rate_steps,
            warmup=run.warmup if stage.warmup is None else stage.warmup,
            schedule=stage.schedule or run.schedule,
        )


def place_of(run: TrainingSettings, data: TaskData, index: int) -> StagePlace:
    """Finds the place of a stage.

    Args:
        run: Settings of the training.
        data: Its examples.
        index: Number of the stage.

    Raises:
        UsageError: If the stage pre-trains, but there are no texts for it.
    """
    settings = run.stages[index]
    examples = _examples(data, settings)
    order = _order(run, examples, index)
    steps = _stage_steps(run, settings, order)
    place = StagePlace(examples, order, steps, first_batch=0, rate_offset=0, rate_steps=steps)
    if settings.pretraining_epochs is not None:
        return place
    lengths = {
        number: _stage_steps(run, stage, _order(run, _examples(data, stage), number))
        for number, stage in enumerate(run.stages)
        if stage.pretraining_epochs is None
    }
    if run.shuffle == "run":
        # With augmented examples the set is another one, and has an order of its own.
        alike = [number for number in lengths if run.stages[number].augmented == settings.augmented]
        place = dataclasses.replace(place, first_batch=sum(lengths[number] for number in alike if number < index))
    if run.across_stages == "continue":
        before = sum(count for number, count in lengths.items() if number < index)
        place = dataclasses.replace(place, rate_offset=before, rate_steps=sum(lengths.values()))
    return place


def _order(run: TrainingSettings, examples: ExampleSet, index: int) -> BatchOrder:
    stage = run.stages[index]
    own = run.shuffle == "stage" or stage.pretraining_epochs is not None
    number = index if own else int(stage.augmented)
    seed = int(np.random.SeedSequence([run.seed, number]).generate_state(1)[0])
    return BatchOrder(examples.lengths, run.batch_size, seed=seed)


def _examples(data: TaskData, settings: StageSettings) -> ExampleSet:
    if settings.pretraining_epochs is not None:
        if data.pretraining is None:
            raise UsageError(f"stage {settings.name!r} pre-trains, but there are no texts for it")
        return data.pretraining
    if settings.augmented and data.augmented is not None:
        return joined(data.train, data.augmented)
    return data.train


def _stage_steps(run: TrainingSettings, settings: StageSettings, order: BatchOrder) -> int:
    if settings.pretraining_epochs is not None:
        return order.steps(settings.pretraining_epochs)
    share = settings.share / sum(stage.share for stage in run.stages if stage.pretraining_epochs is None)
    if run.epochs is not None:
        return order.steps(run.epochs * share)
    return max(1, round((run.steps or 1) * share))
