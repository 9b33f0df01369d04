"""What a training leaves: the lines of its log, its result, and both as the report tells them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from edgeq.results.base import STRICT, Result, plain, validated

Figures = Mapping[str, float | None]
"""Figures by name; None for one that is no finite number."""


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """What a stage of a training came to.

    Attributes:
        name: Its name.
        steps: Steps it took.
        metric: The figure by which models are compared; None without evaluation.
        values: All figures of the weights it ended with, by name.
    """

    name: str
    steps: int
    metric: str | None
    values: Figures

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class TrainingResult(Result):
    """``result.json`` of a finished training.

    Attributes:
        weights: File of the weights of the result, relative to the training's folder: latent weights and state of the
            quantizers.
        steps: Steps of all stages.
        metric: The figure by which models are compared; None without evaluation.
        values: All figures of the result by name.
        stages: The stages in order.
    """

    format: Literal["edgeq-training"] = dataclasses.field(default="edgeq-training", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT
    fix = "train again"

    weights: str
    steps: int
    metric: str | None
    values: Figures
    stages: tuple[StageOutcome, ...]


@dataclasses.dataclass(frozen=True)
class TrainingRun(Result):
    """``run.json``: what a training is of; one that goes on must be the same in all of it.

    Attributes:
        task: What is trained.
        settings: What :meth:`edgeq.training.settings.TrainingSettings.to_json` returned.
        losses: Settings of the losses of each stage.
        data: Digests of the examples by what they are for.
        processes: Processes that train together.
        student: Digest of the weights that the student starts from.
        teacher: Digest of the teacher's weights; None without one.
    """

    format: Literal["edgeq-training-run"] = dataclasses.field(default="edgeq-training-run", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT
    fix = "train again, in another folder"

    task: str
    settings: dict[str, Any]
    losses: dict[str, dict[str, Any]]
    data: dict[str, str]
    processes: int
    student: str
    teacher: str | None


@dataclasses.dataclass(frozen=True)
class LogLine:
    """A line of ``log.jsonl``: means over the last steps, or an evaluation.

    Attributes:
        step: Steps that were done, those of earlier stages included.
        stage: Name of the stage.
        losses: Means of ``loss``, its parts and ``gradient_norm`` since the last line; in JSON they stand beside the
            other fields. Empty in a line of an evaluation.
        epoch: Epochs of the stage that were done.
        learning_rate: Of the weights.
        seconds: Time of the stage's steps so far.
        evaluation: Figures of the model in training; None in a line of losses.
    """

    step: int
    stage: str
    losses: Figures = dataclasses.field(default_factory=dict)
    epoch: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    evaluation: Figures | None = None

    __pydantic_config__ = STRICT

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        first: dict[str, Any] = {"step": self.step, "stage": self.stage}
        if self.evaluation is not None:
            return first | {"evaluation": plain(self.evaluation)}
        rates = {"epoch": self.epoch, "learning_rate": self.learning_rate}
        return first | rates | plain(self.losses) | {"seconds": self.seconds}

    @classmethod
    def from_json(cls, table: Mapping[str, Any], *, where: str) -> LogLine:
        """Reads what :meth:`to_json` returned.

        Args:
            table: The object of a line.
            where: File and line, for messages.

        Raises:
            FormatError: If the values are of another kind.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"losses"}
        fields: dict[str, Any] = {name: value for name, value in table.items() if name in names}
        losses = {name: value for name, value in table.items() if name not in names}
        return validated(cls, fields | {"losses": losses}, where=where, fix="train again")


@dataclasses.dataclass(frozen=True)
class SavedProgress:
    """``state.json``: how far a training was when its state was written.

    Attributes:
        step: Steps that were done.
        stage: Number of the stage that runs.
        stage_step: Steps of it that were done.
        best: The best value of the metric so far; None before the first evaluation.
        best_values: All figures of that evaluation.
        metric: Name of the metric; None before the first evaluation.
        values: Figures of the last evaluation.
        seconds: Time of the stage's steps.
        sums: Sums of losses since the last line of the log.
        counted: How many steps they are of.
        outcomes: Stages that are finished.
    """

    step: int
    stage: int
    stage_step: int
    best: float | None
    best_values: Figures
    metric: str | None
    values: Figures | None
    seconds: float
    sums: dict[str, float]
    counted: int
    outcomes: tuple[StageOutcome, ...]

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class TrainedStage(StageOutcome):
    """A stage as the report tells it.

    Attributes:
        seconds: Time of its steps.
        weights_of: The step whose weights it ended with; None if that was not written.
    """

    seconds: float
    weights_of: int | None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation during a training found."""

    step: int
    stage: str
    values: Figures

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Training:
    """A finished training, as ``report.json`` holds it.

    Attributes:
        folder: Name of its folder in the run.
        task: What was trained.
        settings: The settings that a reader wants to know, by name.
        steps: Steps of all stages.
        seconds: Time of all steps.
        metric: The figure by which models are compared; None without evaluation.
        values: All figures of the result by name.
        stages: The stages in order.
        loss: Pairs of a step and the mean loss up to there; neighbours are joined where there are many.
        evaluations: In the order of the steps.
    """

    folder: str
    task: str
    settings: dict[str, str | int | float]
    steps: int
    seconds: float
    metric: str | None
    values: Figures
    stages: tuple[TrainedStage, ...]
    loss: tuple[tuple[int, float], ...]
    evaluations: tuple[Evaluation, ...]

    __pydantic_config__ = STRICT
