"""Trains a student: stages, evaluation, and checkpoints from which a killed training goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from edgeq.distill import Objective
from edgeq.distill.sentence import Pooling
from edgeq.errors import UsageError
from edgeq.models import adapter_for
from edgeq.progress import Progress, silent
from edgeq.results import StageOutcome, TrainingResult, TrainingRun
from edgeq.training.data import TaskData
from edgeq.training.dropout import without_dropout
from edgeq.training.evaluation import Figures
from edgeq.training.fused_gelu import fused_gelu
from edgeq.training.log import RunLog
from edgeq.training.optimizer import Moments
from edgeq.training.outcome import RESULT_FILE, TrainingOutcome
from edgeq.training.run_folder import TrainingFolder
from edgeq.training.settings import StageSettings, TrainingSettings
from edgeq.training.stage import StageContext, StageTraining
from edgeq.training.tensors import load_weights, put_weights

BeginStage = Callable[[nn.Module, StageSettings], None]
"""Brings the student into the form of a stage (bits, activations), its latent weights being in place."""


def train(
    student: nn.Module,
    teacher: nn.Module | None,
    *,
    data: TaskData,
    settings: TrainingSettings,
    objective: Objective | Mapping[str, Objective],
    out: Path | str,
    resume: bool = False,
    begin_stage: BeginStage | None = None,
    pooling: Pooling = "mean",
    progress: Progress = silent,
) -> TrainingOutcome:
    """Trains ``student`` in place; it holds the result when this returns.

    Under ``accelerate launch`` every process calls this with the same arguments; each reads its part of every
    batch, and the first one writes ``out``, which all must see. What a step does depends on the seed, the number
    of the step and the number of processes alone: a training that was killed and resumed gives the same weights, bit
    for bit, on the same kind of processor with the same number of threads. GPUs add some sums in an order that
    changes from run to run; there, only what is read, dropped and sampled is the same.

    Args:
        student: A model of one of the supported architectures, float or in its training form.
        teacher: The model it learns from; None to train on labels alone.
        data: Examples.
        settings: How it is trained.
        objective: The losses; or those of each stage by its name.
        out: Folder of the training, with its checkpoints and its log; new, or that of the training to be resumed.
        resume: Go on with the training in ``out`` if there is one.
        begin_stage: Called at the beginning of each stage. A training that is resumed calls it for all stages up to
            its own, in order, before it restores the weights.
        pooling: How token states become a sentence embedding, for embedding models.
        progress: Told how many steps are done.

    Raises:
        UsageError: If the arguments do not fit together, ``out`` holds another training, or a checkpoint is missing.
        FormatError: If a checkpoint is damaged.
        EdgeqError: If the loss is not a number; the message names the step and the last good checkpoint.
    """
    run = _Run(
        student,
        teacher,
        data=data,
        settings=settings,
        objectives=_by_stage(objective, settings),
        folder=TrainingFolder(Path(out)),
        begin_stage=begin_stage,
        pooling=pooling,
        progress=progress,
    )
    return run.whole(resume=resume)


class _Run:
    """One training, from its first stage to its last."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        data: TaskData,
        settings: TrainingSettings,
        objectives: dict[str, Objective],
        folder: TrainingFolder,
        begin_stage: BeginStage | None,
        pooling: Pooling,
        progress: Progress,
    ) -> None:
        self.student, self.teacher, self.data, self.settings = student, teacher, data, settings
        self.folder, self.begin_stage, self.progress = folder, begin_stage, progress
        self.objectives = objectives
        if teacher is None and any(one.settings.needs_teacher for one in self.objectives.values()):
            raise UsageError("distillation needs a teacher; give one, or train on labels alone")
        if any(stage.augmented for stage in settings.stages) and data.augmented is None:
            raise UsageError("a stage asks for augmented examples, but none were made")
        self.accelerator = _accelerator()
        if self.accelerator.mixed_precision == "fp16":
            raise UsageError("training in float16 is not supported; launch with --mixed_precision no, and set bf16")
        self.adapter = adapter_for(student)
        self.pooling = pooling
        self.first_weights: dict[str, Any] | None = None
        self.outcomes: list[StageOutcome] = []
        self.moments: Moments = {}

    def whole(self, *, resume: bool) -> TrainingOutcome:
        """Runs all stages, or those that are left."""
        if self.accelerator.is_main_process:
            self.folder.open(self._identity(), resume=resume)
        self.accelerator.wait_for_everyone()
        self.student.to(self.accelerator.device)
        if self.teacher is not None:
            self.teacher.to(self.accelerator.device).eval()
        state = self.folder.newest_state()
        progress = None if state is None else self.folder.read_progress(state)
        self.outcomes = [] if progress is None else list(progress.outcomes)
        step, current = (0, 0) if progress is None else (progress.step, progress.stage)
        log = RunLog(self.folder.log_file, step=step, active=self.accelerator.is_main_process)
        first_step = step - (0 if progress is None else progress.stage_step)
        for index, settings in enumerate(self.settings.stages):
            self._begin(index, settings, load=index >= current)
            if index < current:
                continue
            stage = StageTraining(self._context(log, index, first_step), settings)
            if index == current and state is not None and progress is not None:
                stage.restore(state, progress)
            dropout = contextlib.nullcontext() if self.settings.dropout else without_dropout(self.student)
            with dropout, fused_gelu(self.student, self.teacher):
                figures = stage.run()
            first_step += stage.steps
            self.moments = stage.moments() if settings.pretraining_epochs is None else {}
            self._finish(settings, stage, figures)
        for model in (self.student, self.teacher):
            if model is not None:
                model.to("cpu").eval()
        return self._outcome(first_step)

    def _begin(self, index: int, settings: StageSettings, *, load: bool) -> None:
        """Puts the weights that a stage starts from in place, and the student into the stage's form."""
        source = settings.initialise_from
        if load and source == "teacher" and self.first_weights is not None:
            put_weights(self.student, self.first_weights, source="the start of the run", quantizers=False)
        elif load and source not in (None, "teacher"):
            load_weights(self.student, self.folder.stage_weights(str(source)), quantizers=False)
        if self.begin_stage is not None:
            torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, index]).generate_state(1)[0]))
            self.begin_stage(self.student, settings)
            self.student.to(self.accelerator.device)
        if index == 0 and any(stage.initialise_from == "teacher" for stage in self.settings.stages):
            self.first_weights = copy.deepcopy(self.student.state_dict())

    def _context(self, log: RunLog, index: int, first_step: int) -> StageContext:
        name = self.settings.stages[index].name
        return StageContext(
            accelerator=_accelerator(),  # a new one holds on to no model of the stage before
            student=self.student,
            teacher=self.teacher,
            adapter=self.adapter,
            data=self.data,
            settings=self.settings,
            objective=self.objectives[name],
            folder=self.folder,
            log=log,
            index=index,
            first_step=first_step,
            pooling=self.pooling,
            outcomes=self.outcomes,
            moments=self._carried(index),
            progress=self.progress,
        )

    def _carried(self, index: int) -> Moments:
        """Returns the moments that a stage goes on with: none if it is a training of its own, or starts elsewhere."""
        own = self.settings.stages[index]
        goes_on = self.settings.across_stages == "continue" and own.initialise_from is None
        return self.moments if goes_on and own.pretraining_epochs is None else {}

    def _finish(self, settings: StageSettings, stage: StageTraining, figures: Figures | None) -> None:
        """Leaves the student with the weights that the stage ends with."""
        self.accelerator.wait_for_everyone()
        chosen = self.settings.select == "best" and figures is not None
        if chosen:
            load_weights(self.student, self.folder.stage_weights(settings.name), quantizers=True)
        elif self.accelerator.is_main_process:
            self.folder.save_stage(settings.name, self.student, step=stage.first_step + stage.steps)
        self.accelerator.wait_for_everyone()
        values = dict(stage.best_values if chosen else (figures.values if figures is not None else {}))
        metric = figures.metric if figures is not None else None
        self.outcomes.append(StageOutcome(settings.name, stage.steps, metric, values))

    def _outcome(self, steps: int) -> TrainingOutcome:
        last = self.outcomes[-1]
        weights = self.folder.stage_weights(last.name).relative_to(self.folder.path)
        result = TrainingResult(str(weights), steps, last.metric, last.values, tuple(self.outcomes))
        if self.accelerator.is_main_process:
            result.write(self.folder.path / RESULT_FILE)
        self.accelerator.wait_for_everyone()
        return TrainingOutcome(self.folder.path, result)

    def _identity(self) -> TrainingRun:
        """What decides the weights that come out."""
        sets = {"train": self.data.train, "evaluation": self.data.evaluation, "augmented": self.data.augmented}
        sets["pretraining"] = self.data.pretraining
        return TrainingRun(
            task=self.data.task,
            settings=self.settings.to_json(),
            losses={name: dataclasses.asdict(one.settings) for name, one in self.objectives.items()},
            data={name: examples.digest() for name, examples in sets.items() if examples is not None},
            processes=self.accelerator.num_processes,
            student=_digest(self.student),
            teacher=None if self.teacher is None else _digest(self.teacher),
        )


def _accelerator() -> Accelerator:
    # BERT's pooler, or a quantizer that a stage leaves off, gets no gradient: an error unless looked for.
    return Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])


def _by_stage(objective: Objective | Mapping[str, Objective], settings: TrainingSettings) -> dict[str, Objective]:
    names = [stage.name for stage in settings.stages]
    if isinstance(objective, Objective):
        return dict.fromkeys(names, objective)
    if sorted(objective) != sorted(names):
        raise UsageError(f"objectives are for the stages {', '.join(objective)}, the training has {', '.join(names)}")
    return dict(objective)


def _digest(model: nn.Module) -> str:
    """Returns a SHA-256 over names, shapes and values."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict().items():
        digest.update(f"|{name}".encode())
        if isinstance(value, torch.Tensor):
            plain = value.detach().to("cpu").contiguous()
            digest.update(f"{tuple(plain.shape)}{plain.dtype}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
