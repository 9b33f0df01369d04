"""What training must know of quantizers: which parts of a model they are, and the curvature that some ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from edgeq.quant.activation_training import DynamicActivation, StaticActivation
from edgeq.quant.quantizers.base import WeightQuantizer
from edgeq.quant.quantizers.loss_aware import LossAware
from edgeq.quant.trainable_layers import TrainableLayer

_QUANTIZERS = (WeightQuantizer, DynamicActivation, StaticActivation)


def quantizer_entries(model: nn.Module) -> Callable[[str], bool]:
    """Returns a function that tells whether a parameter, or an entry of the state, is part of a quantizer."""
    prefixes = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, _QUANTIZERS))
    return lambda name: name.startswith(prefixes)


def update_curvatures(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gives quantizers that weigh errors by the loss's curvature (LAQ) the second moments of ``optimizer``.

    Args:
        model: The student.
        optimizer: An AdamW; before its first step there is no curvature, and all weights count alike.
    """
    for layer in model.modules():
        if isinstance(layer, TrainableLayer) and isinstance(layer.quantizer, LossAware):
            layer.quantizer.set_curvature(optimizer.state.get(layer.weight, {}).get("exp_avg_sq"))
