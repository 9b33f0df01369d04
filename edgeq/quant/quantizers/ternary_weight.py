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
    gradient to every weight (``identity``); ``clipped`` passes it where ``|w| <= 2.5``, as TernaryBERT's code does.
    """

    method: ClassVar[str] = "twn"
    supported_bits: ClassVar[tuple[int, ...]] = (2,)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; what becomes 0 depends on the mean, not on the scale."""
        magnitude = weight.abs()
        beyond = magnitude.clone().gt_(THRESHOLD * self.mean(magnitude).reshape(-1, 1))
        scale = self.total(magnitude.mul_(beyond)) / self.total(beyond).clamp(min=1)
        return weight.sign().mul_(beyond), scale.float()

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= 2.5``."""
        del scale
        return weight.abs().le_(CLIP)
