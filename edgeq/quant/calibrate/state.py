"""What calibration methods work on: a model in its training form beside the float model that it should behave like."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from edgeq.models import LayerStack
from edgeq.quant.grids import Grid
from edgeq.quant.plan import LayerPlan
from edgeq.quant.quantizers.base import divide
from edgeq.quant.quantizers.grid_step import GridStep
from edgeq.quant.trainable_layers import TiedTrainableLinear, TrainableEmbedding, TrainableLinear

Batch = Mapping[str, torch.Tensor]
"""Inputs of a model by name: texts of one length, so that nothing is padded."""
Run = Callable[[nn.Module, Batch], Any]
"""Runs a model on a batch."""
_INSIDE = 0.25
"""How far from its level, in steps, a latent weight may start: well inside its cell, so that the first steps of a
training do not undo what was chosen."""


class CalibrationTexts(Protocol):
    """Tokenised texts."""

    def batches(self, tokens: int, *, seed: int, most: int | None = None) -> Iterator[Batch]:
        """Yields texts once, ``most`` tokens or all, in batches of one length and at most ``tokens``."""
        ...


@dataclasses.dataclass(frozen=True)
class CalibrationState:
    """A model that is being calibrated.

    Attributes:
        model: In its training form; every quantized layer has the quantizer ``grid``.
        reference: The float model with layers of the same names.
        plans: What becomes of each layer.
        texts: Calibration texts.
        run: Runs either model on a batch of them.
        stacks: The blocks of both models.
        seed: Decides the order of the texts.
        teacher: The float model with all of its blocks, where ``reference`` has fewer; None where that is the same.
    """

    model: Any
    reference: Any
    plans: Sequence[LayerPlan]
    texts: CalibrationTexts
    run: Run
    stacks: tuple[LayerStack, ...]
    seed: int = 0
    teacher: Any = None

    def linears(self) -> dict[str, TrainableLinear]:
        """Returns the quantized linear layers with weights of their own, by name, in the order of the plans."""
        return {p.name: m for p in self.plans if isinstance(m := self.model.get_submodule(p.name), TrainableLinear)}

    def tables(self) -> dict[str, TrainableEmbedding]:
        """Returns the quantized tables by name."""
        return {p.name: m for p in self.plans if isinstance(m := self.model.get_submodule(p.name), TrainableEmbedding)}

    def heads(self) -> dict[str, str]:
        """Returns the output heads that share the weights of a quantized table, with that table."""
        return {
            plan.name: str(plan.tied_to)
            for plan in self.plans
            if isinstance(self.model.get_submodule(plan.name), TiedTrainableLinear)
        }


def grid_quantizer(layer: TrainableLinear | TrainableEmbedding) -> GridStep:
    """Returns the quantizer of a layer that is being calibrated."""
    quantizer = layer.quantizer
    if not isinstance(quantizer, GridStep):
        raise TypeError(f"layer {layer.plan.name!r} was not planned for calibration")
    return quantizer


@torch.no_grad()
def store(
    layer: TrainableLinear | TrainableEmbedding, target: torch.Tensor, *, levels: torch.Tensor, scale: torch.Tensor
) -> None:
    """Gives a layer levels and scales, and latent weights that round to these levels.

    A latent weight is as near to its target as its level lets it be: a later method that trains begins there.

    Args:
        layer: Changed in place.
        target: Float weights that the levels stand for: ``[N, K]``.
        levels: ``code - zero_point``: float32 ``[N, K]``.
        scale: float32 ``[N]`` or ``[1]``.
    """
    quantizer = grid_quantizer(layer)
    quantizer.set_scale(scale)
    exact = quantizer.scale()
    steps = torch.clamp(divide(target, exact), levels - _INSIDE, levels + _INSIDE)
    used = torch.where(exact > 0, exact, torch.ones_like(exact))[:, None]
    layer.weight.data = torch.where((exact > 0)[:, None], steps * used, torch.zeros_like(steps))


def grid_of(layer: TrainableLinear | TrainableEmbedding) -> Grid:
    """Returns the grid of a layer that is being calibrated."""
    return grid_quantizer(layer).levels_of_bits
