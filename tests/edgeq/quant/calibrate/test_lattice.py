"""Levels and scales under a metric: never worse than rounding to the nearest, and right where that can be known."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.quant.calibrate.lattice import corrected_target, damped, first_scale, fit, fitted_scale
from edgeq.quant.calibrate.second_moments import SecondMoments
from edgeq.quant.grids import Grid, grid_for
from edgeq.quant.scale_search import round_weight, search_scale

GRIDS = [grid_for(1), grid_for(2, "ternary"), grid_for(2, "balanced"), grid_for(4), grid_for(7), grid_for(8)]


def _inputs(tokens: int, columns: int, *, seed: int) -> torch.Tensor:
    """Correlated inputs with columns of very different sizes, as layers have them."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator)
    return torch.randn(tokens, columns, generator=generator) @ mix * torch.logspace(-1, 1, columns)


def _error(weight: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor, square: torch.Tensor) -> float:
    rest = (weight - levels * scale[:, None]).double()
    return float(((rest @ square) * rest).sum())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.bits}-{grid.name}")
@pytest.mark.parametrize("per_row", [True, False])
def test_the_error_is_below_that_of_the_nearest_levels(grid: Grid, per_row: bool) -> None:
    inputs = _inputs(300, 37, seed=grid.bits)
    weight = torch.randn(19, 37, generator=torch.Generator().manual_seed(5))
    square = (inputs.T @ inputs / 300).double()
    levels, scale = fit(weight, square, grid, per_row=per_row, damping=1e-6)
    assert scale.shape == ((19,) if per_row else (1,))
    known = {code - grid.zero_point for code in range(grid.lowest, grid.highest + 1)}
    assert set(levels.unique().tolist()) <= known
    nearest_scale = search_scale(weight, grid, per_row=per_row)
    nearest = round_weight(weight, nearest_scale, grid).float() - grid.zero_point
    assert _error(weight, levels, scale, square) < 0.7 * _error(weight, nearest, nearest_scale, square)


def _small_problem(seed: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = _inputs(50, columns, seed=seed)
    weight = torch.randn(1, columns, generator=torch.Generator().manual_seed(seed))
    return weight, damped((inputs.T @ inputs / 50).double(), 1e-3)


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from(GRIDS))
@settings(max_examples=25, deadline=None)
def test_the_error_is_never_above_that_of_the_nearest_levels_with_their_best_scale(
    seed: int, columns: int, grid: Grid
) -> None:
    weight, square = _small_problem(seed, columns)
    levels, scale = fit(weight, square, grid, per_row=True, damping=1e-9)
    first = first_scale(weight, square.diagonal().float(), grid, per_row=True)
    nearest = round_weight(weight, first, grid).float() - grid.zero_point
    fitted = fitted_scale(weight, nearest, square.float(), per_row=True)
    found = _error(weight, levels, scale, square)
    assert found <= 1.001 * _error(weight, nearest, fitted, square) + 1e-6


@pytest.mark.parametrize("grid", GRIDS[:3], ids=lambda grid: f"{grid.bits}-{grid.name}")
def test_small_problems_come_near_the_best_levels_there_are(grid: Grid) -> None:
    """A descent may end in a local minimum, so single problems prove nothing; the mean over many does."""
    steps = [code - grid.zero_point for code in range(grid.lowest, grid.highest + 1)]
    choices = torch.tensor(list(itertools.product(steps, repeat=4)))
    lost = []
    for seed in range(40):
        weight, square = _small_problem(seed, 4)
        levels, scale = fit(weight, square, grid, per_row=True, damping=1e-9)
        scales = fitted_scale(weight.expand(len(choices), -1), choices, square.float(), per_row=True)
        rest = (weight - choices * scales[:, None]).double()
        best = float(((rest @ square) * rest).sum(dim=1).min())
        energy = float(((weight.double() @ square) * weight).sum())
        lost.append((_error(weight, levels, scale, square) - best) / energy)
    assert sum(lost) / len(lost) < 0.02


def test_a_matrix_of_zeros_has_scale_zero() -> None:
    levels, scale = fit(torch.zeros(3, 8), torch.eye(8, dtype=torch.float64), grid_for(4), per_row=True, damping=0.01)
    assert not scale.any()
    assert not levels.any()


def test_the_corrected_target_gives_the_float_outputs_on_other_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(400, 12, generator=generator)
    change = torch.randn(12, 12, generator=generator)
    quantized = original @ change  # inputs that a linear map of the weights can make up for entirely
    weight = torch.randn(5, 12, generator=generator)
    square, cross = (quantized.T @ quantized / 400).double(), (original.T @ quantized / 400).double()
    target = corrected_target(weight, square, cross, damping=1e-9)
    torch.testing.assert_close(quantized @ target.T, original @ weight.T, rtol=1e-3, atol=1e-3)
    # With nothing but damping, the target is the weight itself.
    held = corrected_target(weight, square, cross, damping=1e9)
    torch.testing.assert_close(held, weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3, 0.1])
def test_inputs_that_hardly_differ_are_calibrated_with(noise: float) -> None:
    """What is left of their second moments is rounding, and was once not positive definite at 0.001."""
    generator = torch.Generator().manual_seed(0)
    moments, usual = SecondMoments(48), 5 * torch.randn(48, generator=generator)
    for _ in range(2):
        tokens = usual + noise * torch.randn(4096, 48, generator=generator)
        moments.add(tokens, tokens)
    square, cross = moments.centred(shift=True)
    weight = torch.randn(8, 48, generator=generator)
    target = corrected_target(weight, square, cross, damping=0.1)
    levels, scale = fit(target, square, grid_for(2, "balanced"), per_row=True, damping=0.01)
    rounded = levels * scale[:, None]
    assert torch.isfinite(rounded).all()
    assert float((rounded - weight).square().mean()) < float(weight.square().mean())
