"""The optimizer: AdamW, and for what quantizers learn a rate of its own, relative to the size of each number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from edgeq.training.quantizers import quantizer_entries
from edgeq.training.settings import TrainingSettings

Moments = dict[str, dict[str, torch.Tensor]]
"""AdamW's averages and counts by the name of the parameter."""


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Makes the optimizer of a stage.

    Matrices are a group with weight decay; vectors (biases and norms) are one without. Each parameter of a quantizer is
    a group of its own, without weight decay and with a rate that is relative to its size: Adam moves every number by
    about its rate a step, and what quantizers learn is anything from 2.5 (PACT's clip) to 0.0005 (a step of 8 bits).

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
        *(_group((parameter,), own, 0.0, relative=True) for parameter in quantizers),
    ]
    # The fused form is several times faster on CPUs as well, where it is not the default.
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=settings.betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of each group to its peak times ``factor``, and times its size where it is relative."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
        if group["relative"]:
            group["lr"] *= float(group["params"][0].detach().abs().mean())


def rate_of_weights(optimizer: torch.optim.Optimizer) -> float:
    """Returns the present learning rate of the weights."""
    return max(float(group["lr"]) for group in optimizer.param_groups if not group["relative"])


def moments_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> Moments:
    """Returns what an optimizer remembers of each parameter of ``model``, by name."""
    return {name: optimizer.state[p] for name, p in model.named_parameters() if p in optimizer.state}


def put_moments(optimizer: torch.optim.Optimizer, model: nn.Module, moments: Moments) -> None:
    """Lets an optimizer go on where another one was, for parameters of the same name and shape."""
    for name, parameter in model.named_parameters():
        remembered = moments.get(name)
        if remembered is not None and remembered["exp_avg"].shape == parameter.shape:
            optimizer.state[parameter] = dict(remembered)


def _group(
    parameters: Iterable[nn.Parameter], peak: float, weight_decay: float, *, relative: bool = False
) -> dict[str, Any]:
    return {
        "params": list(parameters), "peak": peak, "lr": peak, "weight_decay": weight_decay, "relative": relative
    }  # fmt: skip
