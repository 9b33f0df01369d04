"""The training loop of the zoo: resumable, seeded, logged as JSON lines."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from benchmarks.zoo.average import WeightAverage
from benchmarks.zoo.schedule import Schedule
from benchmarks.zoo.state import load_state, save_state
from edgeq.files import Output, new_folder, write_text


class Task(Protocol):
    """What is trained: batches that depend on the step alone, and a figure of merit."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a batch, for the speed in the log."""
        ...

    def loss(self, model: PreTrainedModel, *, step: int) -> torch.Tensor:
        """Returns the mean loss of the batch of ``step``, a scalar with its gradient."""
        ...

    def validate(self, model: PreTrainedModel) -> dict[str, float]:
        """Returns figures on held-out data; ``"loss"`` among them decides which model is the best."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how a task is trained.

    Attributes:
        schedule: Learning rate and number of steps.
        weight_decay: AdamW's, on matrices only.
        clip: Largest norm of the gradient.
        validate_every: Steps between two validations.
        save_seconds: Seconds between two saved states.
        log_every: Steps between two lines of the log.
        average: Part of itself that the moving average of the weights keeps at each step; None for no average.
            What is validated, and kept as the best model, is the average.
        patience: After this many validations without a better one the rate begins to fall, and the run ends with
            the fall: ``schedule.decay`` says how many of its steps that takes. None for ``schedule.steps`` in any case.
    """

    schedule: Schedule
    weight_decay: float = 0.1
    clip: float = 1.0
    validate_every: int = 250
    save_seconds: float = 180.0
    log_every: int = 20
    average: float | None = None
    patience: int | None = None


def _optimizer(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def _cut_log(file: Path, step: int) -> None:
    """Drops the lines of steps that the resumed run is going to take again."""
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_text(file, "".join(line + "\n" for line in kept))


class _Run:
    """One run's files and what it carries from step to step."""

    def __init__(self, folder: Path, model: PreTrainedModel, plan: Plan) -> None:
        self.folder, self.model, self.plan = folder, model, plan
        self.optimizer = _optimizer(model, plan.weight_decay)
        self.average = None if plan.average is None else WeightAverage(model, keep=plan.average)
        progress = load_state(folder, model, self.optimizer, average=self.average) or {}
        self.step: int = progress.get("step", 0)
        self.steps: int = min(progress.get("steps", math.inf), plan.schedule.steps)
        self.stale: int = progress.get("stale", 0)
        self.best: float = progress.get("best", math.inf)
        self.seconds: float = progress.get("seconds", 0.0)
        self.log_file = folder / "log.jsonl"
        _cut_log(self.log_file, self.step)

    @property
    def schedule(self) -> Schedule:
        """The plan's schedule, ended early if validations said so."""
        return dataclasses.replace(self.plan.schedule, steps=self.steps)

    def log(self, **figures: Any) -> None:
        line = json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **figures})
        print(line, flush=True)
        with self.log_file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def save(self) -> None:
        progress = {"best": self.best, "seconds": self.seconds, "stale": self.stale}
        if self.steps < self.plan.schedule.steps:
            progress["steps"] = self.steps  # decided; otherwise --steps may still be changed on resuming
        save_state(self.folder, self.model, self.optimizer, average=self.average, step=self.step, progress=progress)

    def validate(self, task: Task) -> None:
        self.model.eval()
        with torch.no_grad(), self.average.in_place_of(self.model) if self.average else nullcontext():
            figures = task.validate(self.model)
            better = figures["loss"] < self.best
            if better:
                self.best = figures["loss"]
                with new_folder(self.folder / "best", Output("zoo")) as folder:
                    self.model.save_pretrained(folder)
                    record = {"step": self.step, "seconds": self.seconds, **figures}
                    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
        self.model.train()
        self.stale = 0 if better else self.stale + 1
        self.log(**{f"valid_{name}": round(value, 4) for name, value in figures.items()})
        if self.plan.patience is not None and self.stale >= self.plan.patience:
            self._begin_decay()

    def _begin_decay(self) -> None:
        """Lets the rate fall from here on, unless it falls already."""
        schedule = self.schedule
        if self.step < schedule.decay_start:
            self.steps = min(self.steps, math.ceil(self.step / (1 - schedule.decay)))
            self.log(decay_begins=self.schedule.decay_start, steps=self.steps)

    def advance(self, task: Task) -> torch.Tensor:
        rate = self.schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = task.loss(self.model, step=self.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, step=self.step)
        return loss.detach()


def train(model: PreTrainedModel, task: Task, *, folder: Path, plan: Plan) -> None:
    """Trains until ``plan.schedule.steps``, or to the plateau if the plan has a patience.

    It begins at the newest state in ``folder`` if there is one.

    Writes ``log.jsonl``, ``state-<step>/`` and ``best/`` (the model with the lowest validation loss so far)
    into ``folder``. Killed at any moment, it loses at most the steps since the last state.

    Args:
        model: The model, freshly initialised; the state's parameters replace its own.
        task: Batches and validation.
        folder: Folder of the run; made if missing.
        plan: Steps, rates, intervals.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, model, plan)
    model.train()
    saved = logged = time.monotonic()
    losses: list[torch.Tensor] = []
    while run.step < run.steps:
        losses.append(run.advance(task))
        now = time.monotonic()
        last = run.step == run.steps
        if run.step % plan.log_every == 0 or last:
            run.seconds += now - logged
            speed = len(losses) * task.tokens_per_step / (now - logged)
            mean = float(torch.stack(losses).mean())
            rate = run.schedule.rate(run.step - 1)
            run.log(loss=round(mean, 4), rate=round(rate, 7), tokens_per_second=round(speed))
            losses, logged = [], now
        if run.step % plan.validate_every == 0 or last:
            run.validate(task)
            logged = time.monotonic()  # the speed that is logged is that of training alone
        # Only where the log has a line: a resumed run then writes the same lines as one never stopped.
        if not losses and (now - saved > plan.save_seconds or last):
            run.save()
            saved = time.monotonic()
