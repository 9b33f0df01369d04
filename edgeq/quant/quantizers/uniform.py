"""Uniform levels from the largest magnitude, or from the smallest and the largest weight."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.errors import UsageError
from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, divide


class Uniform(WeightQuantizer):
    """``w_q = s * round(w / s)`` with ``s = max|w| / k``; nothing is clipped, so the gradient passes everywhere."""

    method: ClassVar[str] = "uniform"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity",)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`."""
        scale = self.over_groups(torch.amax, weight.abs()) / self.largest
        return self.symmetric_levels(weight, scale), scale


class UniformAsymmetric(WeightQuantizer):
    """All levels between the smallest and the largest weight, zero among them: ``s = (max - min) / (levels - 1)``.

    The zero point is the code nearest to ``-min / s`` and one number for the matrix, so that there is no scale a row.
    Weights that this shift pushes over the last level are clipped by at most half a step; the gradient passes
    everywhere.
    """

    method: ClassVar[str] = "uniform-asymmetric"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity",)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        if self.per_row:
            raise UsageError(
                "quantizer 'uniform-asymmetric' has one zero point and one scale a matrix; set scale = \"matrix\""
            )

    @property
    def lowest_code(self) -> int:
        """Smallest code in use: 8-bit matrices leave 0 out."""
        return 1 if self.bits == 8 else 0

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; sets the zero point that belongs to the weights."""
        smallest, largest = weight.amin().clamp(max=0), weight.amax().clamp(min=0)
        lowest, highest = self.lowest_code, 2**self.bits - 1
        scale = ((largest - smallest) / (highest - lowest)).reshape(1)
        if bool(scale > 0):
            self.zero_point = float(torch.round(-smallest / scale)) + lowest
        levels = divide(weight, scale).round_()
        return levels.clamp_(lowest - self.zero_point, highest - self.zero_point), scale
