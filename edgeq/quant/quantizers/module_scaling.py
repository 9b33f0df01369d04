"""Module-wise dynamic scaling: the weight quantizer of QuantGPT."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import SMALLEST_FACTOR, WeightQuantizer, divide, learned, replace_values
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm


class ModuleScaling(WeightQuantizer):
    """Learns ``gamma``, the clip threshold in units of the mean magnitude of the weights.

    ``alpha = gamma * ||w||_1 / n``, ``w_q = alpha * round(k * clip(w, -alpha, alpha) / alpha) / k`` with
    ``k = 2**(bits - 1) - 1``; stored as ``scale = alpha / k``. Since ``gamma`` is of order 1 in every module, one
    learning rate suits all (Tao et al., Compression of Generative Pre-trained Language Models via Quantization,
    ACL 2022, section 3.2).

    The gradient of ``gamma`` uses weights inside and outside the clip range: ``mean|w| * sum g * s`` with
    ``s = Q(u)`` outside and ``Q(u) - w / alpha`` inside. PACT's (``gradient="pact"``) has 0 inside. The mean itself is
    taken as a constant: its derivative is of order ``1 / n``.

    The paper does not say where ``gamma`` starts; here it starts at the least squared rounding error.
    """

    method: ClassVar[str] = "module-scaling"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity", "pact")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.gamma = learned(torch.ones(1))

    def start(self, weight: torch.Tensor) -> None:
        """Searches the ``gamma`` of least squared error."""
        self.start_at(self.level_of_least_error(weight), weight)

    def start_at(self, largest: torch.Tensor, weight: torch.Tensor) -> None:
        """See :meth:`WeightQuantizer.start_at`; a row of zeros has ``gamma`` 1."""
        mean = self.mean(weight.abs())
        ones = torch.ones_like(mean)
        replace_values(self.gamma, torch.where(mean > 0, largest / torch.where(mean > 0, mean, ones), ones))

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is ``gamma * mean|w| / k``."""
        scale = self._factor() * self.mean(weight.abs()) / self.largest
        return self.symmetric_levels(weight, scale), scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= alpha``."""
        return divide(weight, scale * self.largest).abs_().le_(1)

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Adds the slope of ``gamma``."""
        fraction = divide(weight, scale * self.largest)
        inside = fraction.abs().le_(1)
        slope = levels / self.largest
        if self.gradient == "pact":
            slope *= 1 - inside
        else:
            slope.addcmul_(fraction, inside, value=-1)
        mean = scale * self.largest / self._factor()
        passes = None if self.gradient == "identity" else inside
        return GradientRule(passes, (LearnedTerm(self.gamma, slope, mean),))

    def _factor(self) -> torch.Tensor:
        return self.gamma.detach().clamp(min=SMALLEST_FACTOR)
