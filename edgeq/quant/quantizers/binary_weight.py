"""Binary weights: sign and mean magnitude."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer

CLIP = 2.5
"""TernaryBERT's bound for the weights of its binary and ternary quantizers, where ``clipped`` is chosen."""


class BinaryWeight(WeightQuantizer):
    """``w_q = sign(w) * mean|w|`` (Rastegari et al., XNOR-Net, 2016, eq. 6); an exact zero becomes positive.

    The mean is not differentiated. XTC passes the gradient to every weight (``identity``); ``clipped`` passes it
    where ``|w| < 2.5``, as TernaryBERT's code does.
    """

    method: ClassVar[str] = "bwn"
    supported_bits: ClassVar[tuple[int, ...]] = (1,)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """Returns twice the mean magnitude: the levels are -0.5 and 0.5."""
        return 2 * self.mean(weight.abs())

    def codes(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 for weights from zero on."""
        del scale
        return (weight >= 0).float()

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns where ``|w| < 2.5``."""
        del scale
        return weight.abs() < CLIP
