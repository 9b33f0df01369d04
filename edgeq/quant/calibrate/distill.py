"""``distill``: a short training of the whole model against the float model's outputs, without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

from edgeq.progress import Progress, silent
from edgeq.quant.calibrate.optimise import Rates, minimise, parameter_groups
from edgeq.quant.calibrate.state import Batch, CalibrationState

OutputLoss = Callable[[Batch], torch.Tensor]
"""How far a batch's outputs and hidden states are from the float model's."""


@dataclasses.dataclass(frozen=True)
class Distill:
    """Settings of the method.

    Attributes:
        loss_of: Yields the loss between a model and its float reference while a block runs, and takes its hooks off
            the two afterwards.
        steps: Steps of the training.
        batch_tokens: Tokens of a step.
        rates: Learning rates.
    """

    loss_of: Callable[[nn.Module, nn.Module], AbstractContextManager[OutputLoss]]
    steps: int
    batch_tokens: int
    rates: Rates

    def apply(self, state: CalibrationState, *, progress: Progress = silent) -> None:
        """Trains latent weights, scales, biases and norms of ``state.model``."""
        teacher = state.reference if state.teacher is None else state.teacher
        with self.loss_of(state.model, teacher) as loss:
            minimise(
                loss,
                endless(state, self.batch_tokens),
                groups=parameter_groups(state.model, self.rates),
                steps=self.steps,
                what="calibrating the whole (distillation)",
                progress=progress,
            )


def endless(state: CalibrationState, tokens: int) -> Iterator[Batch]:
    """Yields batches again and again, each time in another order."""
    epoch = 0
    while True:
        yield from state.texts.batches(tokens, seed=state.seed + epoch)
        epoch += 1
