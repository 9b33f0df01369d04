"""PACT on weights: two learned clip values."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import SMALLEST_STEP, WeightQuantizer, learned, replace_values
from edgeq.quant.quantizers.binary_weight import CLIP
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm


class Pact(WeightQuantizer):
    """Clips the weights to learned ``[c-, c+]`` and rounds them to symmetric levels up to the largest that is left.

    Both clips start at 2.5 and get ``sum g`` over the weights beyond them and nothing from those inside (Choi et al.,
    PACT, 2018, eq. 3; as a weight quantizer: BinaryBERT's code, the baseline of QuantGPT). The scale
    ``max|clip(w)| / k`` is not differentiated.
    """

    method: ClassVar[str] = "pact"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.lower = learned(-CLIP * torch.ones(1))
        self.upper = learned(CLIP * torch.ones(1))

    def start(self, weight: torch.Tensor) -> None:
        """Sets the clips to -2.5 and 2.5."""
        bound = torch.full((weight.shape[0] if self.per_row else 1,), CLIP, device=weight.device)
        replace_values(self.lower, -bound)
        replace_values(self.upper, bound)

    def start_at(self, largest: torch.Tensor, weight: torch.Tensor) -> None:
        """See :meth:`WeightQuantizer.start_at`: the clips are at plus and minus the largest level."""
        del weight
        replace_values(self.lower, -largest)
        replace_values(self.upper, largest)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is the largest magnitude after clipping, over ``k``."""
        lower, upper = self._bounds()
        clipped = torch.minimum(torch.maximum(weight, lower), upper)
        scale = self.over_groups(torch.amax, clipped.abs()) / self.largest
        return self.symmetric_levels(clipped, scale), scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``c- < w < c+``."""
        del scale
        below, above = self._beyond(weight)
        return 1 - below - above

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Adds the slopes of the clips: 1 for weights beyond them."""
        del levels, scale
        below, above = self._beyond(weight)
        passes = None if self.gradient == "identity" else 1 - below - above
        return GradientRule(passes, (LearnedTerm(self.lower, below), LearnedTerm(self.upper, above)))

    def _beyond(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lower, upper = self._bounds()
        return weight.clone().le_(lower), weight.clone().ge_(upper)

    def _bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower = self.lower.detach().clamp(max=-SMALLEST_STEP)
        return lower.reshape(-1, 1), self.upper.detach().clamp(min=SMALLEST_STEP).reshape(-1, 1)
