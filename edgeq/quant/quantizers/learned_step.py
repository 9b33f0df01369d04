"""LSQ: the step between levels is learned."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import SMALLEST_STEP, WeightQuantizer, divide, learned, replace_values
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm


class LearnedStepSize(WeightQuantizer):
    """``w_q = s * clip(round(w / s), Qn, Qp)`` with learned ``s``, ``Qn = -2**(bits-1)``, ``Qp = 2**(bits-1) - 1``.

    Esser et al., Learned Step Size Quantization, 2020, eq. 1 to 3. The slope of ``s`` is ``Qn`` or ``Qp`` outside and
    ``round(w / s) - w / s`` inside, times ``1 / sqrt(n * Qp)`` with ``n`` weights a step; it starts at
    ``2 * mean|w| / sqrt(Qp)``. At 2 bits the levels are -2, -1, 0 and 1.

    Departure: 8-bit codes leave 0 out, so ``Qn`` is -127 there.
    """

    method: ClassVar[str] = "lsq"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.step = learned(torch.ones(1))

    @property
    def lowest(self) -> int:
        """Qn."""
        return -127 if self.bits == 8 else -(2 ** (self.bits - 1))

    def zero_point_of(self, bits: int) -> float:
        """Returns the code of level 0, in the middle of the codes."""
        return float(2 ** (bits - 1))

    def start(self, weight: torch.Tensor) -> None:
        """Sets the step to ``2 * mean|w| / sqrt(Qp)``."""
        replace_values(self.step, 2 * self.mean(weight.abs()) / math.sqrt(self.largest))

    def start_at(self, largest: torch.Tensor, weight: torch.Tensor) -> None:
        """See :meth:`WeightQuantizer.start_at`; the largest level is ``Qp`` steps."""
        del weight
        replace_values(self.step, largest / self.largest)

    def step_size(self) -> torch.Tensor:
        """Returns the learned number without gradient, never quite zero."""
        return self.step.detach().clamp(min=SMALLEST_STEP)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is the step."""
        scale = self.step_size()
        return divide(weight, scale).round_().clamp_(self.lowest, self.largest), scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``Qn < w / s < Qp``."""
        middle, half = (self.largest + self.lowest) / 2, (self.largest - self.lowest) / 2
        return divide(weight, scale).sub_(middle).abs_().lt_(half)

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Adds the slope of the step."""
        inside = self.inside(weight, scale)
        slope = levels.addcmul(divide(weight, scale), inside, value=-1)
        factor = 1 / math.sqrt(self.weights_of_a_step(weight) * self.largest)
        passes = None if self.gradient == "identity" else inside
        return GradientRule(passes, (LearnedTerm(self.step, slope, factor),))

    def weights_of_a_step(self, weight: torch.Tensor) -> int:
        """Returns how many weights share a step: a row of them, or all."""
        return weight.shape[1] if self.per_row else weight.numel()


class SymmetricLearnedStep(LearnedStepSize):
    """LSQ with levels ``-Qp..Qp``: at 2 bits -1, 0 and 1, as many as the methods that it is compared with have.

    Not in the paper. It tells what the level -2 is worth.
    """

    method: ClassVar[str] = "lsq-symmetric"

    @property
    def lowest(self) -> int:
        """``-Qp``."""
        return -self.largest

    def zero_point_of(self, bits: int) -> float:
        """Returns the code of level 0, in the middle of the codes in use."""
        return WeightQuantizer.zero_point_of(self, bits)
