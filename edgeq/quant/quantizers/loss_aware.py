"""LAQ: scale and levels that lose least under the curvature of the loss."""

from __future__ import annotations

from typing import ClassVar

import torch

from edgeq.errors import UsageError
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import GradientName
from edgeq.quant.quantizers.base import WeightQuantizer, divide, signs
from edgeq.quant.scale_search import search_scale

ALTERNATIONS = 10


class LossAware(WeightQuantizer):
    """Minimises ``sum D * (alpha * b - w)**2`` over ``alpha`` and the levels ``b`` in turn, from the last ``alpha``.

    ``alpha = sum|b D w| / sum|b D b|``; ``b = round(k * clip(w / alpha, -1, 1)) / k`` (Hou and Kwok, Loss-aware Weight
    Quantization, 2018, eq. 9 and 10, and its baseline form in BinaryBERT's code). ``D`` is the diagonal curvature,
    the square root of Adam's second moment, which the trainer may set with :meth:`set_curvature`; without it all
    weights count alike. There are up to ten turns. At 1 bit ``b`` is the sign, and ``alpha`` the weighted mean
    magnitude at once. The gradient passes to every weight.

    The scale is found in each training step and kept for evaluation and storage: it belongs to the weights and the
    curvature that the step had.

    Attributes:
        kept_scale: The scale of the last training step: float32, ``[1]`` or ``[N]``.
        curvature: D, or None.
    """

    method: ClassVar[str] = "laq"
    supported_bits: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    gradients: ClassVar[tuple[GradientName, ...]] = ("identity", "clipped")
    keeps_rows_apart: ClassVar[bool] = False  # its scales are a buffer, which a part of the rows cannot update
    kept_scale: torch.Tensor

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.register_buffer("kept_scale", torch.ones(1))
        self.curvature: torch.Tensor | None = None

    def set_curvature(self, second_moment: torch.Tensor | None) -> None:
        """Takes Adam's running mean of squared gradients, of the weight's shape; None for equal weights.

        Raises:
            UsageError: If a value is negative.
        """
        if second_moment is not None and bool(second_moment.amin() < 0):
            raise UsageError("the second moment of a gradient should be positive, found a negative value")
        self.curvature = None if second_moment is None else second_moment.detach().float().sqrt()

    def start(self, weight: torch.Tensor) -> None:
        """Forgets the curvature and finds the scale of least squared error."""
        self.curvature = None
        best = search_scale(weight.cpu(), grid_for(self.bits), per_row=self.per_row)
        self.kept_scale = best.to(weight.device)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """See :meth:`WeightQuantizer.forward`; finds the scale anew in training."""
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.kept_scale.copy_(self._best_scale(weight.detach().float(), self.kept_scale))
        return super().forward(weight)

    def rounded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`WeightQuantizer.rounded`; the scale is the kept one."""
        return self._levels(weight, self.kept_scale), self.kept_scale.clone()

    def inside(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Returns 1 where ``|w| <= alpha``."""
        return divide(weight, scale * self._largest_level).abs_().le_(1)

    def _levels(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return signs(weight) if self.bits == 1 else self.symmetric_levels(weight, scale)

    @property
    def _largest_level(self) -> float:
        return 0.5 if self.bits == 1 else self.largest

    def _best_scale(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Alternates from ``scale``, ten times or until it stands still; in units of levels: ``alpha / k``."""
        curvature = torch.ones_like(weight) if self.curvature is None else self._nowhere_zero(self.curvature)
        weighted = weight * curvature
        for _ in range(ALTERNATIONS):
            level = self._levels(weight, scale)
            fit = self.total((level * weighted).abs_())
            energy = self.total(level.square_().mul_(curvature))
            # Where all levels are zero there is nothing to fit, and the scale stays.
            found = torch.where(energy > 0, fit / energy.clamp(min=1e-300), scale.double()).float()
            if torch.equal(found, scale):
                break
            scale = found
        return scale

    def _nowhere_zero(self, curvature: torch.Tensor) -> torch.Tensor:
        """A row without any gradient so far (a token that was not seen) counts all its weights alike."""
        largest = self.over_groups(torch.amax, curvature).reshape(-1, 1)
        return torch.where(largest > 0, curvature, torch.ones_like(curvature))
