"""Scales from the statistics of the weights, not learned."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, divide


class WeightStatistics(WeightQuantizer):
    """``w_q = alpha * round(clip(w / alpha, -1, 1))`` with ``alpha = (4/3) * mean|w|`` at 2 bits (ternary).

    Liu et al., Binary and Ternary Natural Language Generation, ACL 2023, section 3. At 1 bit ``alpha = mean|w|`` and
    the level is the sign. ``alpha`` is not differentiated; the gradient passes where ``|w| < alpha``, which is the
    derivative of the clip.
    """

    method: ClassVar[str] = "statistics"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns alpha, or twice alpha at 1 bit, whose levels are halves."""
        mean = self.mean(weight.abs())
        return 2 * mean if self.bits == 1 else mean * (4 / 3)

    def codes(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """See :meth:`WeightQuantizer.codes`."""
        if self.bits == 1:
            return (weight >= 0).float()
        return self.symmetric_codes(weight, scale)

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns where ``|w| < alpha``."""
        alpha = scale / 2 if self.bits == 1 else scale
        return divide(weight, alpha).abs_() < 1
