"""Codes and scales of a matrix that change a layer's output least, given the second moments of its inputs.

The error of a row ``w`` that is stored as ``q = s * level`` is ``(w - q) H (w - q)^T`` with ``H = E[z z^T]``. Finding
the best levels is a closest-vector problem. Three steps come near it:

* column by column, each rounding error being made up for by the columns that are still to come (Frantar et al., GPTQ,
  2023, algorithm 1; the same as LDLQ of Chee et al., QuIP, 2023, section 3), the most important columns first;
* the scale of each row in closed form, its levels being given;
* descent by one coordinate at a time, which no column-by-column order allows (Behdin et al., QuantEase, 2023).
"""

from __future__ import annotations

import torch

from edgeq.quant.grids import Grid
from edgeq.quant.quantizers.base import divide

_BLOCK = 128  # columns whose corrections are applied to the others in one matmul
_RATIOS = 24  # clipping ratios that are tried for the first scale
_MOST_DAMPINGS = 40  # each ten times the one before
_SMALLEST_RATIO = {1: 0.1, 2: 0.2, 4: 0.4, 7: 0.65, 8: 0.75}


def damped(square: torch.Tensor, damping: float) -> torch.Tensor:
    """Adds ``damping`` times the mean of the diagonal to it, so that few texts say nothing for certain.

    Where all tokens are nearly alike, what is left of their moments is rounding, which may point either way: as much
    more is added as makes it positive definite.
    """
    largest, eye = float(square.diagonal().mean()), torch.eye(len(square), dtype=square.dtype)
    amount = damping * largest if largest > 0 else 1.0
    for _ in range(_MOST_DAMPINGS):
        made = square + eye * amount
        if not int(torch.linalg.cholesky_ex(made).info):
            break
        amount *= 10
    return made


def corrected_target(
    weight: torch.Tensor, square: torch.Tensor, cross: torch.Tensor, *, damping: float
) -> torch.Tensor:
    """Returns the float weights that, on the quantized model's inputs, come nearest to the float layer's outputs.

    ``W (C + d I) (H + d I)^-1`` with ``C = E[x z^T]``: the solution of least squares, drawn towards ``W`` by the
    damping (Li et al., GPTAQ, 2025, section 3).

    Args:
        weight: float32, ``[N, K]``.
        square: ``H``: float64, ``[K, K]``.
        cross: ``C``: float64, ``[K, K]``.
        damping: ``d`` over the mean of the diagonal of ``H``.
    """
    wanted = weight.double() @ damped_like(cross, square, damping)
    solved: torch.Tensor = torch.linalg.solve(damped(square, damping), wanted, left=False)
    return solved.float()


def damped_like(cross: torch.Tensor, square: torch.Tensor, damping: float) -> torch.Tensor:
    """Adds to ``cross`` what :func:`damped` adds to ``square``."""
    return cross + (damped(square, damping) - square)


def fit(
    weight: torch.Tensor, square: torch.Tensor, grid: Grid, *, per_row: bool, damping: float, rounds: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds levels and scales of small error under the metric of the inputs.

    Args:
        weight: Target: float32, ``[N, K]``.
        square: ``H``: float64, ``[K, K]``.
        grid: The levels.
        per_row: One scale a row, or one for the matrix.
        damping: See :func:`damped`.
        rounds: Times that the scales are fitted anew and the codes chosen anew.

    Returns:
        ``levels`` (``code - zero_point``): float32 ``[N, K]``; ``scale``: float32 ``[N]`` or ``[1]``.
    """
    metric = damped(square, damping)
    inverse_factor = _inverse_factor(metric)
    metric = metric.float()
    first = scale = first_scale(weight, metric.diagonal(), grid, per_row=per_row)
    best_levels, best_scale, best_error = None, scale, None
    for attempt in range(rounds + 1):
        # The first candidate is the nearest levels: columns that make up for each other may end up worse than them.
        levels = _feed_back(weight, scale, grid, *inverse_factor) if attempt else _nearest(weight, scale, grid)
        levels = _facing(weight, levels, metric, per_row=per_row)
        for _ in range(2):
            scale = fitted_scale(weight, levels, metric, per_row=per_row)
            levels = _descend(weight, levels, scale, grid, metric)
        error = _error(weight, levels, scale, metric, per_row=per_row)
        if best_error is None or best_levels is None:
            best_levels, best_scale, best_error = levels, scale, error
        else:
            better = error < best_error
            rows = better if per_row else better.expand(len(weight))
            best_levels = torch.where(rows[:, None], levels, best_levels)
            best_scale = torch.where(better, scale, best_scale)
            best_error = torch.where(better, error, best_error)
        scale = torch.where(scale > 0, scale, first)  # a scale of zero is no place to go on from
    assert best_levels is not None  # noqa: S101
    return best_levels, best_scale


def first_scale(weight: torch.Tensor, importance: torch.Tensor, grid: Grid, *, per_row: bool) -> torch.Tensor:
    """Returns the scales of least rounding error, each column weighed by its importance: float32 ``[N]`` or ``[1]``.

    Args:
        weight: float32, ``[N, K]``.
        importance: float32, ``[K]``.
        grid: The levels.
        per_row: One scale a row, or one for the matrix.
    """
    peak = weight.abs().amax(dim=1) if per_row else weight.abs().amax().reshape(1)
    largest = peak / grid.largest_level
    best, best_error = largest.clone(), torch.full_like(largest, torch.inf)
    for ratio in torch.linspace(_SMALLEST_RATIO[grid.bits], 1.0, _RATIOS).tolist():
        scale = largest * ratio
        error = ((_nearest(weight, scale, grid) * scale[:, None] - weight).square_() @ importance)
        error = error if per_row else error.sum().reshape(1)
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best


def fitted_scale(
    weight: torch.Tensor, levels: torch.Tensor, metric: torch.Tensor, *, per_row: bool
) -> torch.Tensor:
    """Returns the best scales of given levels, ``(level H w) / (level H level)``: float32 ``[N]`` or ``[1]``."""
    product = levels @ metric
    above, below = (product * weight).sum(dim=1), (product * levels).sum(dim=1)
    if not per_row:
        above, below = above.sum().reshape(1), below.sum().reshape(1)
    fitted = torch.where(below > 0, above / below.clamp(min=1e-30), torch.zeros_like(below))
    return fitted.clamp(min=0.0)


def _facing(weight: torch.Tensor, levels: torch.Tensor, metric: torch.Tensor, *, per_row: bool) -> torch.Tensor:
    """Turns levels round that point away from the weights under the metric: every grid is symmetric."""
    along = ((levels @ metric) * weight).sum(dim=1)
    along = along if per_row else along.sum().reshape(1)
    return torch.where((along < 0)[:, None], -levels, levels)


def _nearest(weight: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    return grid.round_to_codes(divide(weight, scale)).sub_(grid.zero_point)


def _error(
    weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor, metric: torch.Tensor, *, per_row: bool
) -> torch.Tensor:
    rest = weight - levels * scale[:, None]
    error = ((rest @ metric) * rest).sum(dim=1)
    return error if per_row else error.sum().reshape(1)


def _inverse_factor(metric: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the order of the columns, and the upper Cholesky factor of the inverse of the metric in that order."""
    order = metric.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(metric[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True).float()


def _feed_back(
    weight: torch.Tensor, scale: torch.Tensor, grid: Grid, order: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """Rounds column by column; what is lost is made up for by the columns behind."""
    rest = weight[:, order].T.contiguous()  # [K, N]: a column is a row in memory
    levels = torch.empty_like(rest)
    steps = torch.where(scale > 0, scale, torch.ones_like(scale))
    columns = len(rest)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        lost = torch.empty(stop - start, rest.shape[1])
        for column in range(start, stop):
            chosen = grid.round_to_codes(rest[column] / steps).sub_(grid.zero_point)
            levels[column] = chosen
            lost[column - start] = (rest[column] - chosen * scale) / factor[column, column]
            if column + 1 < stop:
                rest[column + 1 : stop] -= torch.outer(factor[column, column + 1 : stop], lost[column - start])
        if stop < columns:
            rest[stop:] -= factor[start:stop, stop:].T @ lost
    result = torch.empty_like(weight)
    result[:, order] = levels.T
    return result


def _descend(
    weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor, grid: Grid, metric: torch.Tensor
) -> torch.Tensor:
    """Gives each column in turn its best levels, all others being fixed; the error never rises."""
    levels = levels.T.contiguous()
    gradient = metric @ (weight.T - levels * scale)  # [K, N]
    diagonal = metric.diagonal()
    steps = torch.where(scale > 0, scale, torch.ones_like(scale))
    for start in range(0, len(levels), _BLOCK):
        stop = min(start + _BLOCK, len(levels))
        part = gradient[start:stop].clone()
        moved = torch.empty_like(part)
        for column in range(start, stop):
            here = column - start
            wanted = levels[column] + part[here] / (diagonal[column] * steps)
            chosen = grid.round_to_codes(wanted).sub_(grid.zero_point)
            moved[here] = (chosen - levels[column]) * scale
            levels[column] = chosen
            part -= torch.outer(metric[start:stop, column], moved[here])
        gradient -= metric[:, start:stop] @ moved
    return levels.T.contiguous()
