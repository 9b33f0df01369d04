"""How one layer alone is rounded to a width: to the nearest levels, or as error feedback would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from edgeq.quant.calibrate import Batch, ErrorFeedback, SecondMoments, metric_of_table, read_moments
from edgeq.quant.grids import Grid, GridName, grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.scale_search import round_weight, search_scale

GRIDS: dict[int, GridName] = {1: "binary", 2: "balanced", 4: "symmetric", 8: "symmetric"}
"""Widths that are tried, and the levels of each."""
TOKENS = 4096
"""Tokens that second moments are read from, as many as a recipe's error feedback reads."""


@dataclasses.dataclass(frozen=True)
class Rounded:
    """A layer's weights at a width.

    Attributes:
        rows: float32, ``[N, K]``.
        shift: What its bias gains: float32, ``[N]``; None for nothing.
    """

    rows: torch.Tensor
    shift: torch.Tensor | None = None


Rounding = Callable[[str, torch.Tensor, int], Rounded]
"""Rounds the layer of a name, whose weights are float32 ``[N, K]``, to a number of bits."""


def grid_of_width(bits: int) -> Grid:
    """Returns the levels of a width."""
    return grid_for(bits, GRIDS[bits])


def nearest(_layer: str, rows: torch.Tensor, bits: int) -> Rounded:
    """Rounds to the nearest levels."""
    grid = grid_of_width(bits)
    scale = search_scale(rows.contiguous(), grid, per_row=True)
    return Rounded((round_weight(rows, scale, grid).float() - grid.zero_point) * scale[:, None])


class FeedbackRounding:
    """Rounds a layer as error feedback does, with what it reads in the float model.

    Tables that are no output heads, and layers that do not run, get the nearest levels.

    Args:
        model: The float model.
        plans: The plans of all of its layers.
        groups: Layers whose second moments are kept at the same time, such as those of a block.
        run: Runs the model on a batch.
        batches: Calibration texts.
    """

    def __init__(
        self,
        model: Any,
        plans: Sequence[LayerPlan],
        *,
        groups: Sequence[Sequence[str]],
        run: Callable[[Any, Batch], Any],
        batches: Sequence[Batch],
    ) -> None:
        self._model, self._groups, self._run, self._batches = model, groups, run, batches
        heads = {plan.tied_to: plan.name for plan in plans if plan.tied_to is not None}
        linears = {plan.name: plan.name for plan in plans if plan.kind == "linear"}
        self._tables = set(heads)
        self._readers: dict[str, str] = linears | heads
        self._moments: Mapping[str, SecondMoments] = {}

    def __call__(self, layer: str, rows: torch.Tensor, bits: int) -> Rounded:
        """See :data:`Rounding`."""
        moments = self._moments_of(layer)
        if moments is None:
            return nearest(layer, rows, bits)
        has_bias = layer not in self._tables and getattr(self._model.get_submodule(layer), "bias", None) is not None
        square, _ = moments.centred(shift=has_bias)
        square = metric_of_table(square) if layer in self._tables else square
        levels, scale = ErrorFeedback(TOKENS).levels(rows, square, grid_of_width(bits), per_row=True)
        found = levels * scale[:, None]
        lost = (rows - found).double() @ (moments.inputs / moments.tokens)
        return Rounded(found, lost.float() if has_bias else None)

    def _moments_of(self, layer: str) -> SecondMoments | None:
        reader = self._readers.get(layer)
        if reader is None:
            return None
        if reader not in self._moments:
            group = next((group for group in self._groups if layer in group), (layer,))
            names = [self._readers[name] for name in group if name in self._readers]
            self._moments = read_moments(self._model, self._run, self._batches, names=names)
        return self._moments.get(reader)
