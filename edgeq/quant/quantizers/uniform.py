"""Uniform levels from the largest magnitude, or from the smallest and the largest weight."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer


class Uniform(WeightQuantizer):
    """``w_q = s * round(w / s)`` with ``s = max|w| / k``; nothing is clipped, so the gradient passes everywhere."""

    method: ClassVar[str] = "uniform"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity",)

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns ``max|w| / k``."""
        return self.over_groups(torch.amax, weight.abs()) / self.largest

    def codes(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """See :meth:`WeightQuantizer.codes`."""
        return self.symmetric_codes(weight, scale)
