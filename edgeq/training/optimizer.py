"""The optimizer: AdamW with a rate of its own for what quantizers learn."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from edgeq.training.quantizers import quantizer_entries
from edgeq.training.settings import TrainingSettings


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Makes the optimizer of a stage.

    Parameters are in three groups: matrices, with weight decay; vectors (biases and norms), without; parameters
    of quantizers, without weight decay and with a learning rate of their own.

    Args:
        model: The student.
        settings: Its peak rates are in the groups as ``peak``, for :func:`set_rate`.
    """
    own = settings.quantizer_learning_rate or settings.learning_rate
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_quantizer = quantizer_entries(model)
    quantizers = [parameter for name, parameter in named if of_quantizer(name)]
    others = [parameter for name, parameter in named if not of_quantizer(name)]
    groups = [
        _group((p for p in others if p.ndim >= 2), settings.learning_rate, settings.weight_decay),
        _group((p for p in others if p.ndim < 2), settings.learning_rate, 0.0),
        _group(quantizers, own, 0.0),
    ]
    # The fused form is several times faster on CPUs as well, where it is not the default.
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=settings.betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of each group to its peak times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _group(
    parameters: Iterable[nn.Parameter], peak: float, weight_decay: float
) -> dict[str, list[nn.Parameter] | float]:
    return {"params": list(parameters), "peak": peak, "lr": peak, "weight_decay": weight_decay}
