"""Finds the scale that rounds a weight matrix with the least squared error.

Binary and ternary grids have exact solutions. Wider grids are searched: a sweep over clipping ratios,
then least squares on the codes, which lands between the ratios of the sweep.
"""

from __future__ import annotations

from typing import Literal

import torch

from edgeq.quant.grids import Grid

SearchMethod = Literal["mse", "max"]

_SWEEP_STEPS = 40
# Smallest clipping ratio that is tried. Wide grids lose little at the top and gain little from clipping.
_SMALLEST_RATIO = {2: 0.15, 4: 0.35, 7: 0.6, 8: 0.7}
_REFINEMENTS = 4
_CHUNK_ELEMENTS = 1 << 19  # keeps the temporaries of one chunk inside the second-level cache


def search_scale(
    weight: torch.Tensor, grid: Grid, *, per_row: bool, method: SearchMethod = "mse"
) -> torch.Tensor:
    """Finds the scales of a matrix.

    Args:
        weight: float32, shape ``[N, K]``, finite.
        grid: The levels to round to.
        per_row: One scale a row, or one for the matrix.
        method: ``mse`` for the least squared error, ``max`` to map the largest magnitude to the last level.

    Returns:
        float32 of shape ``[N]`` or ``[1]``; 0.0 where all weights are zero.
    """
    if method == "max":
        return _peak(weight, per_row=per_row) / grid.largest_level
    if grid.name == "binary":
        sums = torch.cat([weight[rows].abs().sum(dim=1, dtype=torch.float64) for rows in _row_chunks(weight)])
        return (2.0 * _sum_rows(sums, per_row) / _count(weight, per_row)).float()
    if grid.name == "ternary":
        if not per_row:
            return _best_ternary_scale(weight.abs().reshape(1, -1))
        return torch.cat([_best_ternary_scale(weight[rows].abs()) for rows in _row_chunks(weight)])
    return _sweep(weight, grid, per_row=per_row)


def round_weight(weight: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Returns the codes of ``weight`` under ``scale``: uint8, shape ``[N, K]``.

    Args:
        weight: float32, shape ``[N, K]``.
        scale: float32, shape ``[N]`` or ``[1]``; a zero scale stands for a row of zeros.
        grid: The levels to round to.
    """
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for rows in _row_chunks(weight):
        part = scale if scale.numel() == 1 else scale[rows]
        codes[rows] = grid.round_to_codes(_divide(weight[rows], part)).to(torch.uint8)
    return codes


def squared_error(weight: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Returns each row's sum of squared rounding errors: float64, shape ``[N]``."""
    return _statistics(weight, scale, grid)[0]


def squared_sum(weight: torch.Tensor) -> torch.Tensor:
    """Returns the sum of the squares of a matrix: float64."""
    chunks = _row_chunks(weight)
    sums = torch.empty(len(chunks), dtype=torch.float64)
    for number, rows in enumerate(chunks):
        # Into a place that is there: small results between large temporaries keep the C library from reusing these.
        sums[number] = weight[rows].double().square().sum()
    return sums.sum()


def _peak(weight: torch.Tensor, *, per_row: bool) -> torch.Tensor:
    """Returns the largest magnitude of each row, or of all; no magnitude is kept."""
    lowest, highest = (weight.amin(dim=1), weight.amax(dim=1)) if per_row else (weight.amin(), weight.amax())
    return torch.maximum(-lowest, highest).abs().reshape(-1)


def _best_ternary_scale(magnitude: torch.Tensor) -> torch.Tensor:
    """Exact optimum for the levels -1, 0, 1.

    If the k largest magnitudes of a row become +-scale, their mean is the best scale and the error is
    ``sum(w**2) - (their sum)**2 / k``; so the best k is found among K by one sort.
    """
    ordered = magnitude.sort(dim=1, descending=True).values
    sums = ordered.cumsum(dim=1, dtype=torch.float64)
    counts = torch.arange(1, magnitude.shape[1] + 1, dtype=torch.float64)
    best = (sums.square() / counts).argmax(dim=1, keepdim=True)
    return (sums.gather(1, best) / (best + 1)).squeeze(1).float()


def _sweep(weight: torch.Tensor, grid: Grid, *, per_row: bool) -> torch.Tensor:
    largest_scale = _peak(weight, per_row=per_row) / grid.largest_level
    best_scale = largest_scale.clone()
    best_error = torch.full(best_scale.shape, torch.inf, dtype=torch.float64)

    def consider(scale: torch.Tensor) -> torch.Tensor:
        nonlocal best_scale, best_error
        error, fitted = _statistics(weight, scale, grid, per_row=per_row)
        better = error < best_error
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
        return fitted

    for ratio in torch.linspace(_SMALLEST_RATIO[grid.bits], 1.0, _SWEEP_STEPS).tolist():
        consider(largest_scale * ratio)
    candidate = best_scale
    for _ in range(_REFINEMENTS):
        candidate = consider(candidate)
    return best_scale


def _statistics(
    weight: torch.Tensor, scale: torch.Tensor, grid: Grid, *, per_row: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the squared error under ``scale``, and the scale that fits the resulting codes best."""
    error = torch.empty(weight.shape[0], dtype=torch.float64)
    product = torch.empty_like(error)
    energy = torch.empty_like(error)
    for rows in _row_chunks(weight):
        part = weight[rows]
        part_scale = (scale if scale.numel() == 1 else scale[rows]).reshape(-1, 1)
        level = grid.round_to_codes(_divide(part, part_scale.reshape(-1))).sub_(grid.zero_point)
        product[rows] = (part * level).sum(dim=1).double()
        energy[rows] = level.square().sum(dim=1).double()
        error[rows] = level.mul_(part_scale).sub_(part).square_().sum(dim=1).double()
    error, product, energy = (_sum_rows(values, per_row) for values in (error, product, energy))
    fitted = torch.where(energy > 0, product / energy.clamp(min=1e-300), 0.0).float()
    return error, fitted.clamp(min=0.0)


def _divide(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Divides rows by their scales; a row of zeros has scale 0 and stays zero."""
    return weight / torch.where(scale > 0, scale, 1.0).reshape(-1, 1)


def _sum_rows(values: torch.Tensor, per_row: bool) -> torch.Tensor:
    return values if per_row else values.sum().reshape(1)


def _count(weight: torch.Tensor, per_row: bool) -> int:
    return weight.shape[1] if per_row else weight.numel()


def _row_chunks(weight: torch.Tensor) -> list[slice]:
    step = max(1, _CHUNK_ELEMENTS // weight.shape[1])
    return [slice(start, start + step) for start in range(0, weight.shape[0], step)]
