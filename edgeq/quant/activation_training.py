"""Activations in training: rounded as the device rounds them, with gradients that pass through the rounding."""

from __future__ import annotations

import abc
import math

import torch
from torch import distributed, nn

from edgeq.formats.low_bit import ACTIVATION_LEVELS, Activation
from edgeq.quant.plan import StaticMethod
from edgeq.quant.quantizers.base import SMALLEST_STEP
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm, straight_through
from edgeq.rounding import quantize_dynamic, quantize_static


class DynamicActivation(nn.Module):
    """int8 with a token's own scale; nothing is clipped, so the gradient passes unchanged."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``q * scale`` of :func:`edgeq.rounding.quantize_dynamic`: float32, ``[..., K]``."""
        q, scale = quantize_dynamic(x.detach().float())
        return straight_through(q * scale, x, GradientRule())


class StaticActivation(nn.Module, abc.ABC):
    """int8 with one learned scale, the same for all tokens; outside the range the gradient is zero.

    Attributes:
        bound: The learned number: float32, ``[1]``.
        started: bool ``[1]``: whether ``bound`` was set by a first batch of training.
    """

    started: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bound = nn.Parameter(torch.ones(1))
        self.register_buffer("started", torch.zeros(1, dtype=torch.bool))

    def scale(self) -> torch.Tensor:
        """Returns the scale that is stored with the layer: positive float32, ``[1]``, without gradient."""
        return self._positive_scale(self.bound.detach().float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``q * scale`` of :func:`edgeq.rounding.quantize_static`: float32, ``[..., K]``."""
        latent = x.detach().float()
        if not bool(self.started) and self.training:
            self._start(latent)
        # A model that is evaluated before its first step stays as it is; each batch then counts for itself.
        bound = self.bound.detach().float() if bool(self.started) else self.first_bound(latent).reshape(1)
        scale = self._positive_scale(bound)
        q = quantize_static(latent, scale)
        steps = latent / scale
        inside = steps.abs().lt_(ACTIVATION_LEVELS)
        slope = LearnedTerm(self.bound, self.slope(steps, q, inside))
        return straight_through(q * scale, x, GradientRule(inside, (slope,)))

    @abc.abstractmethod
    def first_bound(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the bound to start with, from a first batch ``[..., K]``: ``[1]``."""

    @abc.abstractmethod
    def scale_of(self, bound: torch.Tensor) -> torch.Tensor:
        """Returns the scale that belongs to a bound."""

    @abc.abstractmethod
    def slope(self, steps: torch.Tensor, q: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Returns the derivative of each ``q * scale`` by the bound; ``steps`` is ``x / scale``, ``inside`` 0 or 1."""

    def _positive_scale(self, bound: torch.Tensor) -> torch.Tensor:
        return self.scale_of(bound).clamp(min=SMALLEST_STEP)

    def _start(self, x: torch.Tensor) -> None:
        first = self.first_bound(x).float().reshape(1)
        if distributed.is_available() and distributed.is_initialized():
            # Processes see different batches, and must start from one number.
            distributed.all_reduce(first)
            first = first / distributed.get_world_size()
        self.bound.data = first
        self.started.fill_(True)


class LearnedStep(StaticActivation):
    """LSQ: the bound is the step itself (Esser et al., Learned Step Size Quantization, 2020, eq. 3 and section 2.2)."""

    def first_bound(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``2 * mean|x| / sqrt(127)``."""
        return 2 * x.abs().mean() / math.sqrt(ACTIVATION_LEVELS)

    def scale_of(self, bound: torch.Tensor) -> torch.Tensor:
        """Returns the step."""
        return bound

    def slope(self, steps: torch.Tensor, q: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Returns ``q`` outside and ``q - x / s`` inside, over ``sqrt(features * 127)``."""
        return q.addcmul(steps, inside, value=-1) / math.sqrt(steps.shape[-1] * ACTIVATION_LEVELS)


class LearnedClip(StaticActivation):
    """PACT: the bound is the largest value that is not clipped (Choi et al., PACT, 2018, eq. 2 and 3), for both signs.

    The paper starts at a constant; here it is the largest magnitude of the first batch.
    """

    def first_bound(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the largest magnitude."""
        return x.abs().amax()

    def scale_of(self, bound: torch.Tensor) -> torch.Tensor:
        """Returns the clip over 127."""
        return bound / ACTIVATION_LEVELS

    def slope(self, steps: torch.Tensor, q: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Returns the sign outside and 0 inside."""
        del q
        return steps.sign() * (1 - inside)


def make_activation(activation: Activation, static_method: StaticMethod) -> nn.Module | None:
    """Makes the quantizer for the input of a linear layer; None where it stays float."""
    if activation == "none":
        return None
    if activation == "dynamic":
        return DynamicActivation()
    return LearnedStep() if static_method == "lsq" else LearnedClip()
