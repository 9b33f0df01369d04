"""LAQ: scale and levels that lose least under the curvature of the loss."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.errors import UsageError
from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, divide, signs

TURNS = 10
SMALLEST_CURVATURE = 1e-8


class LossAware(WeightQuantizer):
    """Looks for the ``alpha`` and levels ``b`` that lose least under the curvature ``D`` of the loss, in turns.

    ``alpha = sum|b D w| / sum|b D|``, then ``b = round(k * clip(w / alpha, -1, 1)) / k``, ten times from
    ``b = sign(w)`` in every training step (Hou and Kwok, Loss-aware Weight Quantization, 2018; the formula is that of
    BinaryBERT's code, the baseline of QuantGPT, which clips wide grids hard). ``D`` is the square root of Adam's
    second moment, which the trainer sets with :meth:`set_curvature`; without it all weights count alike, as in that
    code. At 1 bit ``b`` is the sign, and ``alpha`` the weighted mean magnitude. The gradient passes to every weight.

    The scale is kept for evaluation and storage: it belongs to the weights and the curvature of a training step.

    Attributes:
        kept_scale: The scale of the last training step: float32, ``[1]`` or ``[N]``.
        curvature: D, or None.
    """

    method: ClassVar[str] = "laq"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")
    keeps_rows_apart: ClassVar[bool] = False  # its scales are a buffer, which a part of the rows cannot update
    kept_scale: torch.Tensor

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.register_buffer("kept_scale", torch.ones(1))
        self.curvature: torch.Tensor | None = None

    def set_curvature(self, second_moment: torch.Tensor | None) -> None:
        """Takes Adam's running mean of squared gradients, of the weight's shape; None for equal weights.

        Raises:
            UsageError: If a value is negative.
        """
        if second_moment is not None and bool(second_moment.amin() < 0):
            raise UsageError("the second moment of a gradient should be positive, found a negative value")
        self.curvature = None if second_moment is None else second_moment.detach().float().sqrt() + SMALLEST_CURVATURE

    def start(self, weight: torch.Tensor) -> None:
        """Forgets the curvature and finds a first scale."""
        self.curvature = None
        self.kept_scale = self._found_scale(weight)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`WeightQuantizer.forward`; finds the scale anew in training."""
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.kept_scale.copy_(self._found_scale(weight.detach().float()))
        return super().forward(weight)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is the kept one."""
        return self._levels(weight, self.kept_scale), self.kept_scale.clone()

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= alpha``."""
        return divide(weight, scale * self._largest_level).abs_().le_(1)

    def _levels(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return signs(weight) if self.bits == 1 else self.symmetric_levels(weight, scale)

    @property
    def _largest_level(self) -> float:
        return 0.5 if self.bits == 1 else self.largest

    def _found_scale(self, weight: torch.Tensor) -> torch.Tensor:
        curvature = torch.ones_like(weight) if self.curvature is None else self.curvature
        weighted = (weight * curvature).abs_()
        level = torch.ones_like(weight)
        scale = torch.zeros(1, device=weight.device)
        for _ in range(1 + TURNS):
            total = self.total(level * curvature)
            # Where all weights are zero there is nothing to fit.
            alpha = (self.total(level * weighted) / total.where(total > 0, 1.0)).float()
            found = alpha / self._largest_level
            if self.bits == 1 or torch.equal(found, scale):
                return found
            scale = found
            level = self._levels(weight, scale).abs_()
        return scale
