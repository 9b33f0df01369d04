"""Scales from the statistics of the weights, not learned."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, signs


class WeightStatistics(WeightQuantizer):
    """``w_q = alpha * round(clip(w / alpha, -1, 1))`` with ``alpha = (4/3) * mean|w|`` at 2 bits (ternary).

    Liu et al., Binary and Ternary Natural Language Generation, ACL 2023, section 3. At 1 bit ``alpha = mean|w|`` and
    the level is the sign. ``alpha`` is not differentiated; the gradient passes where ``|w| <= alpha``, which is the
    derivative of the clip.
    """

    method: ClassVar[str] = "statistics"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is alpha, or twice alpha at 1 bit, whose levels are halves."""
        mean = self.mean(weight.abs())
        if self.bits == 1:
            return signs(weight), 2 * mean
        scale = mean * (4 / 3)
        return self.symmetric_levels(weight, scale), scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= alpha``."""
        alpha = scale / 2 if self.bits == 1 else scale
        return weight.abs().le_(alpha.reshape(-1, 1))
