"""Ternary weight networks: a threshold at 0.7 of the mean magnitude."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer
from edgeq.quant.quantizers.binary_weight import CLIP

THRESHOLD = 0.7


class TernaryWeight(WeightQuantizer):
    """``w_q = alpha * sign(w)`` where ``|w| > 0.7 * mean|w|``, else 0; ``alpha`` is the mean ``|w|`` of the former.

    Li and Liu, Ternary Weight Networks, 2016, eq. 6. The statistics are not differentiated. XTC passes the
    gradient to every weight (``identity``); ``clipped`` passes it where ``|w| < 2.5``, as TernaryBERT's code does.
    """

    method: ClassVar[str] = "twn"
    supported_bits: ClassVar[tuple[int, ...]] = (2,)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns the mean magnitude of the weights beyond the threshold."""
        large = self._beyond(weight)
        total = self.over_groups(torch.sum, (weight.abs() * large).double())
        count = self.over_groups(torch.sum, large.double())
        return (total / count.clamp(min=1)).float()

    def codes(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 0, 1 or 2; what is beyond the threshold depends on the mean, not on the scale."""
        del scale
        return weight.sign() * self._beyond(weight) + self.zero_point

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns where ``|w| < 2.5``."""
        del scale
        return weight.abs() < CLIP

    def _beyond(self, weight: torch.Tensor) -> torch.Tensor:
        magnitude = weight.abs()
        return magnitude > THRESHOLD * self.mean(magnitude).reshape(-1, 1)
