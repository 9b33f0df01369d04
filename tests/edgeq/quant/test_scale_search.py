import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import UsageError
from edgeq.formats.low_bit import levels
from edgeq.quant.grids import Grid, grid_for
from edgeq.quant.scale_search import round_weight, search_scale, squared_error, squared_sum

GRIDS = [grid_for(1), grid_for(2, "ternary"), grid_for(2, "balanced"), grid_for(4), grid_for(7), grid_for(8)]
IDS = [f"{grid.bits}-{grid.name}" for grid in GRIDS]


def _weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


def _error(weight: torch.Tensor, scale: torch.Tensor, grid: Grid) -> torch.Tensor:
    level = round_weight(weight, scale, grid).double() - grid.zero_point
    return (scale.double().reshape(-1, 1) * level - weight.double()).square().sum(dim=1)


@pytest.mark.parametrize("grid", GRIDS, ids=IDS)
def test_codes_stay_in_the_grid(grid: Grid) -> None:
    weight = _weight(33, 21)
    codes = round_weight(weight, search_scale(weight, grid, per_row=True), grid)
    assert codes.dtype == torch.uint8
    lowest, highest = levels(grid.bits, grid.zero_point)
    assert lowest <= int(codes.min())
    assert int(codes.max()) <= highest


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=IDS)
def test_no_other_scale_is_much_better(grid: Grid, per_row: bool) -> None:
    weight = _weight(6, 50, seed=3)
    scale = search_scale(weight, grid, per_row=per_row)
    assert scale.shape == ((6,) if per_row else (1,))
    found = _error(weight, scale, grid).sum()
    peak = weight.abs().amax(dim=1) if per_row else weight.abs().amax().reshape(1)
    for ratio in torch.linspace(0.02, 2.5, 700).tolist():
        other = _error(weight, peak * ratio / grid.largest_level, grid).sum()
        assert found <= other * (1 + 1e-5 if grid.name in ("binary", "ternary") else 1.03)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=7), st.sampled_from(["binary", "ternary"]))
def test_binary_and_ternary_are_optimal_over_all_codes(values: list[int], name: str) -> None:
    grid = grid_for(1 if name == "binary" else 2, name)  # type: ignore[arg-type]
    weight = torch.tensor([values], dtype=torch.float32)
    found = float(squared_error(weight, search_scale(weight, grid, per_row=True), grid))
    best = float("inf")
    for codes in itertools.product(range(grid.lowest, grid.highest + 1), repeat=len(values)):
        level = torch.tensor(codes, dtype=torch.float64) - grid.zero_point
        energy = float(level.square().sum())
        scale = max(float((level * weight[0]).sum()) / energy, 0.0) if energy else 0.0
        best = min(best, float((scale * level - weight[0]).square().sum()))
    assert found <= best * (1 + 1e-5) + 1e-4


@pytest.mark.parametrize("grid", GRIDS, ids=IDS)
def test_mse_is_never_worse_than_max(grid: Grid) -> None:
    weight = _weight(20, 64)
    largest = search_scale(weight, grid, per_row=True, method="max")
    assert torch.allclose(largest * grid.largest_level, weight.abs().amax(dim=1))
    found = search_scale(weight, grid, per_row=True)
    assert (squared_error(weight, found, grid) <= squared_error(weight, largest, grid) * (1 + 1e-6)).all()


@pytest.mark.parametrize("grid", GRIDS, ids=IDS)
def test_rows_of_zeros_stay_zero(grid: Grid) -> None:
    weight = _weight(3, 8)
    weight[1] = 0
    scale = search_scale(weight, grid, per_row=True)
    codes = round_weight(weight, scale, grid)
    assert torch.isfinite(scale).all()
    restored = scale[:, None] * (codes.float() - grid.zero_point)
    assert not restored[1].any()
    assert restored[0].any()
    nothing = torch.zeros(2, 5)
    assert search_scale(nothing, grid, per_row=False).tolist() == [0.0]


def test_exact_zero_takes_code_one_on_the_binary_grid() -> None:
    weight = torch.tensor([[0.0, -0.0, -1.0, 2.0]])
    assert round_weight(weight, torch.tensor([1.0]), grid_for(1)).tolist() == [[1, 1, 0, 1]]


def test_weights_on_the_grid_survive_unchanged() -> None:
    grid = grid_for(4)
    codes = torch.randint(1, 16, (8, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    codes[:, 0] = 15
    weight = 0.25 * (codes.float() - 8)
    scale = search_scale(weight, grid, per_row=True)
    assert torch.allclose(scale, torch.full((8,), 0.25))
    assert torch.equal(round_weight(weight, scale, grid), codes)


def test_the_result_does_not_depend_on_how_rows_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _weight(37, 19)
    whole = search_scale(weight, grid_for(4), per_row=True)
    monkeypatch.setattr("edgeq.quant.scale_search._CHUNK_ELEMENTS", 50)
    assert torch.equal(search_scale(weight, grid_for(4), per_row=True), whole)


@pytest.mark.parametrize(
    ("bits", "name"), [(3, None), (0, None), (16, None), (8, "ternary"), (2, "symmetric")]
)
def test_impossible_grids_are_refused(bits: int, name: str | None) -> None:
    with pytest.raises(UsageError, match=str(name) if name else str(bits)):
        grid_for(bits, name)  # type: ignore[arg-type]


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("grid", GRIDS, ids=IDS)
def test_a_matrix_of_several_chunks_is_read_as_a_whole(
    grid: Grid, per_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.cat([_weight(40, 21), torch.zeros(2, 21)])
    whole = search_scale(weight, grid, per_row=per_row), squared_sum(weight)
    monkeypatch.setattr("edgeq.quant.scale_search._CHUNK_ELEMENTS", 21 * 5)
    torch.testing.assert_close(search_scale(weight, grid, per_row=per_row), whole[0], rtol=1e-6, atol=0.0)
    assert float(squared_sum(weight)) == pytest.approx(float(weight.double().square().sum()), rel=1e-12)
    if per_row:
        assert torch.equal(search_scale(weight, grid, per_row=True)[40:], torch.zeros(2))
