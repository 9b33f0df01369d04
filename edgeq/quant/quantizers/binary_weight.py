"""Binary weights: sign and mean magnitude."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, signs

CLIP = 2.5
"""TernaryBERT's bound for the weights of its binary and ternary quantizers, where ``clipped`` is chosen."""


class BinaryWeight(WeightQuantizer):
    """``w_q = sign(w) * mean|w|`` (Rastegari et al., XNOR-Net, 2016, eq. 6); an exact zero becomes positive.

    The mean is not differentiated. XTC passes the gradient to every weight (``identity``); ``clipped`` passes it
    where ``|w| <= 2.5``, as TernaryBERT's code does.
    """

    method: ClassVar[str] = "bwn"
    supported_bits: ClassVar[tuple[int, ...]] = (1,)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the levels are halves, and the scale twice the mean magnitude."""
        return signs(weight), 2 * self.mean(weight.abs())

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= 2.5``."""
        del scale
        return weight.abs().le_(CLIP)
