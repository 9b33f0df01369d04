"""One stage of a training: its steps, its evaluations and its saved states."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeq.distill import FeatureReader, Objective
from edgeq.distill.sentence import Pooling
from edgeq.errors import EdgeqError, UsageError
from edgeq.models import ModelAdapter, adapter_for
from edgeq.progress import Progress
from edgeq.results import LogLine, SavedProgress, StageOutcome
from edgeq.training.bfloat16 import multiplies_bfloat16
from edgeq.training.data import TaskData
from edgeq.training.evaluation import evaluate_model
from edgeq.training.figures import Figures, figures_of
from edgeq.training.log import RunLog
from edgeq.training.optimizer import (
    Moments,
    make_optimizer,
    moments_of,
    put_moments,
    rate_of_weights,
    set_rate,
)
from edgeq.training.place import place_of
from edgeq.training.quantizers import update_curvatures
from edgeq.training.run_folder import TrainingFolder
from edgeq.training.settings import StageSettings, TrainingSettings

_SECONDS_BETWEEN_STATES = 600.0


@dataclasses.dataclass(frozen=True)
class StageContext:
    """What a stage is given by its training.

    Attributes:
        accelerator: The processes, an ``accelerate.Accelerator``.
        student: The student in the form of the stage.
        teacher: The teacher, or None.
        adapter: Adapter of the student.
        data: Examples.
        settings: Settings of the training.
        objective: Losses of the stage.
        folder: Folder of the training.
        log: Log of the training.
        index: Number of the stage.
        first_step: Steps of the stages before it.
        pooling: How token states become a sentence embedding.
        outcomes: What the stages before it came to.
        moments: What the optimizer starts with, by parameter; empty for nothing.
        progress: Told how many steps are done.
    """

    accelerator: Any
    student: nn.Module
    teacher: nn.Module | None
    adapter: ModelAdapter
    data: TaskData
    settings: TrainingSettings
    objective: Objective
    folder: TrainingFolder
    log: RunLog
    index: int
    first_step: int
    pooling: Pooling
    outcomes: list[StageOutcome]
    moments: Moments
    progress: Progress


class StageTraining:
    """A stage of a training.

    Args:
        context: What the training gives it.
        settings: Its settings.

    Attributes:
        steps: Its number of steps.
        first_step: Steps of the stages before it.
        best_values: Figures of its best evaluation so far.
    """

    def __init__(self, context: StageContext, settings: StageSettings) -> None:
        self._context, self._settings = context, settings
        run, data = context.settings, context.data
        self._place = place_of(run, data, context.index)
        self._evaluation = None if settings.pretraining_epochs is not None else data.evaluation
        self.steps = self._place.steps
        self.first_step = context.first_step
        self.best_values: dict[str, float] = {}
        self._best: float | None = None
        self._step = 0
        self._saved = time.monotonic()
        self._seconds = 0.0
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._figures: Figures | None = None
        peaks = run
        if settings.learning_rate is not None:
            peaks = dataclasses.replace(run, learning_rate=settings.learning_rate)
        self._optimizer = make_optimizer(context.student, peaks)
        put_moments(self._optimizer, context.student, context.moments)
        if len(self._place.batch(0)) < context.accelerator.num_processes * run.accumulate:
            raise UsageError(
                f"a batch has {len(self._place.batch(0))} examples, too few for {context.accelerator.num_processes} "
                f"processes and {run.accumulate} pieces each; give more examples or a larger batch_size"
            )

    def restore(self, state: Path, progress: SavedProgress) -> None:
        """Goes on from a saved state of this stage."""
        context = self._context
        context.folder.load_model(state, context.student)
        context.folder.load_optimizer(state, context.student, self._optimizer)
        prefix = f"{context.accelerator.process_index}/"
        remembered = context.folder.load_objective(state)
        context.objective.contrastive.load_state(
            {name.removeprefix(prefix): value for name, value in remembered.items() if name.startswith(prefix)}
        )
        self._step, self._best = progress.stage_step, progress.best
        self.best_values, self._seconds = figures_of(progress.best_values), progress.seconds
        self._sums, self._counted = dict(progress.sums), progress.counted
        if progress.metric is not None and progress.values is not None:
            self._figures = Figures(progress.metric, figures_of(progress.values))

    def run(self) -> Figures | None:
        """Takes the steps that are left.

        Returns:
            Figures of the last evaluation; None without an evaluation set.
        """
        context = self._context
        reader = self._reader(context.student, teacher=False)
        teacher = None if context.teacher is None else self._reader(context.teacher, teacher=True)
        if not context.objective.settings.needs_teacher:
            teacher = None
        wrapped, optimizer = context.accelerator.prepare(reader, self._optimizer)
        context.student.train()
        try:
            while self._step < self.steps:
                self._advance(wrapped, teacher, optimizer)
        finally:
            for one in (reader, teacher):
                if one is not None:
                    one.close()
        return self._figures

    def moments(self) -> Moments:
        """Returns the averages that the optimizer has come to, by parameter."""
        return moments_of(self._optimizer, self._context.student)

    def _reader(self, model: nn.Module, *, teacher: bool) -> FeatureReader:
        objective = self._context.objective
        wanted = objective.teacher_wants if teacher else objective.student_wants
        return FeatureReader(model, adapter_for(model), wanted=wanted, pooling=self._context.pooling)

    def _advance(self, student: nn.Module, teacher: FeatureReader | None, optimizer: Any) -> None:
        started = time.monotonic()
        run, context = self._context.settings, self._context
        factor = self._place.rate_factor(self._step, run, self._settings)
        update_curvatures(context.student, self._optimizer)
        parts = self._gradients(student, teacher)
        # After the pass, in which a static activation may have found where its bound starts.
        set_rate(self._optimizer, factor)
        norm = float(context.accelerator.clip_grad_norm_(context.student.parameters(), run.clip or math.inf))
        if not math.isfinite(parts["loss"]) or not math.isfinite(norm):
            raise self._not_a_number(parts["loss"], norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._step += 1
        self._counted += 1
        for name, value in {**parts, "gradient_norm": norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._seconds += time.monotonic() - started
        last = self._step == self.steps
        if self._step % run.log_every == 0 or last:
            self._write_log()
        self._evaluate_and_save(last=last)
        context.progress(f"training ({self._settings.name})", self._step, self.steps)

    def _gradients(self, student: nn.Module, teacher: FeatureReader | None) -> dict[str, float]:
        """Reads this process's part of the step's batch, piece by piece; returns the losses."""
        context, run = self._context, self._context.settings
        accelerator = context.accelerator
        device = accelerator.device.type
        rank, count = accelerator.process_index, accelerator.num_processes
        seed = np.random.SeedSequence([run.seed, context.index, self._step, rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        chosen = self._place.batch(self._step)[rank::count]
        pieces = np.array_split(chosen, run.accumulate)
        sums: dict[str, float] = {}
        for number, piece in enumerate(pieces):
            batch = {name: value.to(accelerator.device) for name, value in self._place.examples.batch(piece).items()}
            last = number == len(pieces) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(student):
                with torch.autocast(device, torch.bfloat16, enabled=run.bf16 and multiplies_bfloat16(device)):
                    own = student(batch)
                    with torch.no_grad():
                        wanted = None if teacher is None else teacher(batch)
                losses = context.objective(batch, own, wanted)
                part = len(piece) / len(chosen)
                accelerator.backward(losses.total * part)
            for name, value in {"loss": losses.total, **losses.parts}.items():
                sums[name] = sums.get(name, 0.0) + part * float(value.detach())
        return sums

    def _not_a_number(self, loss: float, norm: float) -> EdgeqError:
        state = self._context.folder.newest_state()
        kept = f"the last good checkpoint is {state}" if state is not None else "there is no checkpoint yet"
        found = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        return EdgeqError(
            f"training stopped at step {self.first_step + self._step + 1} (stage {self._settings.name!r}), where "
            f"{found}; {kept}: lower the learning rate or look at the data"
        )

    def _write_log(self) -> None:
        means = {name: total / self._counted for name, total in self._sums.items()}
        line = LogLine(
            self.first_step + self._step,
            self._settings.name,
            losses={name: float(f"{value:.6g}") for name, value in means.items()},
            epoch=round(self._step / self._place.order.steps_per_epoch, 4),
            learning_rate=rate_of_weights(self._optimizer),
            seconds=round(self._seconds, 2),
        )
        self._context.log.write(line)
        self._sums, self._counted = {}, 0

    def _evaluate_and_save(self, *, last: bool) -> None:
        run, context = self._context.settings, self._context
        evaluate_every = run.evaluate_every or self._place.order.steps_per_epoch
        save_every = run.save_every or evaluate_every
        # Clocks of several processes differ, and they save together.
        late = run.save_every is None and time.monotonic() - self._saved > _SECONDS_BETWEEN_STATES
        late = late and context.accelerator.num_processes == 1
        if self._evaluation is not None and (last or self._step % evaluate_every == 0):
            self._evaluate()
        if last or late or self._step % save_every == 0:
            self._save()
            self._saved = time.monotonic()

    def _evaluate(self) -> None:
        context = self._context
        figures = evaluate_model(
            context.student,
            context.adapter,
            context.data,
            teacher=context.teacher,
            pooling=context.pooling,
            processes=context.accelerator,
        )
        self._figures = figures
        step = self.first_step + self._step
        context.log.write(LogLine(step, self._settings.name, evaluation=dict(figures.values)))
        better = figures.better_than(self._best)
        if better or not self.best_values:  # even a first model that is no good is one to end with
            self._best, self.best_values = figures.value if better else None, dict(figures.values)
            if context.settings.select == "best" and context.accelerator.is_main_process:
                context.folder.save_stage(self._settings.name, context.student, step=step)

    def _save(self) -> None:
        context = self._context
        remembered = self._remembered()
        if context.accelerator.is_main_process:
            progress = SavedProgress(
                step=self.first_step + self._step,
                stage=context.index,
                stage_step=self._step,
                best=self._best,
                best_values=dict(self.best_values),
                metric=None if self._figures is None else self._figures.metric,
                values=None if self._figures is None else dict(self._figures.values),
                seconds=self._seconds,
                sums=self._sums,
                counted=self._counted,
                outcomes=tuple(context.outcomes),
            )
            context.folder.save_state(
                model=context.student,
                optimizer=self._optimizer,
                objective=remembered,
                progress=progress,
            )

    def _remembered(self) -> dict[str, torch.Tensor]:
        """What the losses of all processes remember, each under the number of its process."""
        context = self._context
        states = [context.objective.contrastive.state()]
        if context.accelerator.num_processes > 1 and context.objective.settings.contrastive_momentum:
            from accelerate.utils import gather_object

            states = gather_object(states)
        return {f"{rank}/{name}": value for rank, state in enumerate(states) for name, value in state.items()}
