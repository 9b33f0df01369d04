"""The quantizer of calibration: any grid of the storage format, with a learned scale that starts where it is told."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.quant.grids import Grid, GridName, grid_for
from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, divide, learned, replace_values
from edgeq.quant.quantizers.straight_through import GradientRule, LearnedTerm
from edgeq.quant.scale_search import search_scale

_CELL = 0.5  # half the distance between levels: a weight this far beyond the last level still has its nearest level


class GridStep(WeightQuantizer):
    """``w_q = s * (code - zero_point)`` with the nearest code of the grid and a learned logarithm of ``s``.

    Calibration methods choose codes and scales by closed forms (:meth:`set_scale`) and may train both afterwards. The
    learned number is ``log s``: a step of an optimizer then changes scales of all sizes by the same factor. The slope
    of ``s`` is that of LSQ (Esser et al., Learned Step Size Quantization, 2020, eq. 3): the level outside the last
    cell, ``level - w / s`` inside; of a binary weight it is the level, as in ParetoQ (Liu et al., 2025).

    Attributes:
        log_step: float32, ``[N]`` or ``[1]``; minus infinity for a row of zeros.
    """

    method: ClassVar[str] = "grid"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2, 4, 7, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("clipped", "identity")
    two_bit_grids: ClassVar[tuple[GridName, ...]] = ("ternary", "balanced")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.log_step = learned(torch.zeros(1))

    @property
    def levels_of_bits(self) -> Grid:
        """The grid in use."""
        return grid_for(self.bits, self.grid if self.bits == 2 else None)

    def start(self, weight: torch.Tensor) -> None:
        """Starts with the scale of least squared rounding error."""
        scale = search_scale(weight.cpu(), self.levels_of_bits, per_row=self.per_row)
        self.set_scale(scale.to(weight.device))

    def set_scale(self, scale: torch.Tensor) -> None:
        """Sets the scales: float32 ``[N]`` or ``[1]``, zero or more."""
        replace_values(self.log_step, scale.float().log())

    def scale(self) -> torch.Tensor:
        """Returns the scales without gradient: float32 ``[N]`` or ``[1]``."""
        return self.log_step.detach().exp()

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`."""
        scale = self.scale()
        grid = self.levels_of_bits
        return grid.round_to_codes(divide(weight, scale)) - grid.zero_point, scale

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where a weight lies within the outermost cells."""
        return divide(weight, scale).abs_().le_(self.levels_of_bits.largest_level + _CELL)

    def gradient_rule(self, weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor) -> GradientRule:
        """Adds the slope of ``log s``."""
        inside = self.inside(weight, scale)
        slope = levels if self.bits == 1 else levels.addcmul(divide(weight, scale), inside, value=-1)
        passes = None if self.gradient == "identity" else inside
        return GradientRule(passes, (LearnedTerm(self.log_step, slope, scale),))
