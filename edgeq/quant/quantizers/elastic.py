"""Elastic quantizers: learned scales whose levels use every code."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from edgeq.quant.grids import GridName
from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import divide, replace_values, signs
from edgeq.quant.quantizers.learned_step import LearnedStepSize
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm

CLIP_OF_ALPHA = 0.99
"""Beyond this part of alpha a weight is clipped; just below 1, so that alpha itself rounds to the last level."""


class Elastic(LearnedStepSize):
    """Stretched levels with a learned ``alpha`` at 1 and 2 bits, LSQ at 4 and 8 (Liu et al., ParetoQ, 2025, section 3).

    * 1 bit: ``alpha * sign(w)``, from ``mean|w|``.
    * 2 bits: balanced levels ``(-3, -1, 1, 3) / 4 * alpha`` or ternary ``(-2, 0, 2) / 3 * alpha``, from ``max|w|``.
    * 4 and 8 bits: :class:`LearnedStepSize`, from ``max|w| / Qp``.

    The slope of ``alpha`` is the sign at 1 bit, else the level over alpha outside the clip range and
    ``(w_q - w) / alpha`` inside, times ``1 / sqrt(n)`` with ``n`` weights in the matrix.

    Attributes:
        step: ``alpha`` at 1 and 2 bits, the step at 4 and 8.
    """

    method: ClassVar[str] = "elastic"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")
    two_bit_grids: ClassVar[tuple[GridName, ...]] = ("balanced", "ternary")

    @property
    def last_level(self) -> float:
        """Qp of the stretched grids: the last level over alpha."""
        return {0.5: 1.0, 1.0: 2 / 3, 1.5: 3 / 4}[self.zero_point]

    def zero_point_of(self, bits: int) -> float:
        """Returns the code of level 0: a half-integer where there is none."""
        if bits > 2:
            return super().zero_point_of(bits)
        return 0.5 if bits == 1 else {"balanced": 1.5, "ternary": 1.0}[self.grid]

    def start(self, weight: torch.Tensor) -> None:
        """Sets alpha or the step from the mean (1 bit) or the largest magnitude."""
        if self.bits == 1:
            replace_values(self.step, self.mean(weight.abs()))
            return
        peak = self.over_groups(torch.amax, weight.abs())
        replace_values(self.step, peak if self.bits == 2 else peak / self.largest)

    def start_at(self, largest: torch.Tensor, weight: torch.Tensor) -> None:
        """See :meth:`WeightQuantizer.start_at`; at 1 and 2 bits the largest level is a fixed part of alpha."""
        if self.bits > 2:
            super().start_at(largest, weight)
        else:
            replace_values(self.step, largest / self.last_level)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; at 1 and 2 bits the scale is the distance between levels."""
        if self.bits > 2:
            return super().rounded(weight)
        # The last code is as far from zero as the zero point is.
        scale = self.step_size() * self.last_level / self.zero_point
        if self.bits == 1:
            return signs(weight), scale
        # The balanced grid changes levels at 0 and half of alpha, the ternary one at a third of it.
        shift = self.zero_point % 1
        levels = divide(weight, scale).sub_(shift).round_().add_(shift)
        return levels.clamp_(-self.zero_point, self.zero_point), scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w|`` is at most ``alpha`` (1 bit), ``0.99 * alpha`` (2 bits), or in LSQ's closed range."""
        if self.bits <= 2:
            bound = (1 if self.bits == 1 else CLIP_OF_ALPHA) * self.step_size()
            return weight.abs().le_(bound.reshape(-1, 1))
        middle, half = (self.largest + self.lowest) / 2, (self.largest - self.lowest) / 2
        return divide(weight, scale).sub_(middle).abs_().le_(half)

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Adds the slope of alpha or of the step."""
        if self.bits > 2:
            return super().gradient_rule(weight, levels, scale)
        inside = self.inside(weight, scale)
        slope = levels * (self.last_level / self.zero_point)
        if self.bits == 2:
            slope.addcmul_(divide(weight, self.step_size()), inside, value=-1)
        passes = None if self.gradient == "identity" else inside
        return GradientRule(passes, (LearnedTerm(self.step, slope, 1 / math.sqrt(self.weights)),))

    def weights_of_a_step(self, weight: torch.Tensor) -> int:
        """Returns the weights of the matrix, whatever shares a step, as ParetoQ does."""
        del weight
        return self.weights
