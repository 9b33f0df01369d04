"""A moving average of the weights: near what a falling rate would come to, at any moment of a constant one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class WeightAverage:
    """An exponential moving average of a model's parameters.

    Attributes:
        values: The averages by name, each like its parameter; a tied parameter once.
    """

    def __init__(self, model: torch.nn.Module, *, keep: float) -> None:
        """Starts at the model's weights.

        Args:
            model: The model.
            keep: Part of itself that the average keeps at a step, 0 to 1; less in the first steps, in which it is
                the plain mean, so that the start does not weigh on it.
        """
        self.values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._keep = keep

    @torch.no_grad()
    def update(self, model: torch.nn.Module, *, step: int) -> None:
        """Takes the weights after ``step`` steps in."""
        part = max(1 - self._keep, 1 / (step + 1))
        for name, parameter in model.named_parameters():
            self.values[name].lerp_(parameter, part)

    @contextmanager
    def in_place_of(self, model: torch.nn.Module) -> Iterator[None]:
        """Gives the model the averages for as long as the context lasts."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.data.copy_(self.values[name])
            yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.data.copy_(own[name])
