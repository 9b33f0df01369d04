"""Tucker banks and low rank against full reconstruction."""

import pytest
import torch
from torch.nn import functional

from edgeq.errors import UsageError
from edgeq.factor.decompose import shared_outer_factors, truncated_svd, tucker
from edgeq.factor.kinds.blocks import BlockLinear, BlockSpec
from edgeq.factor.kinds.low_rank import LowRankLinear, LowRankSpec
from edgeq.factor.kinds.tucker import BankSpec, TuckerBank, TuckerLinear, TuckerSpec

WIDTH, RANK = 6, 4
GRIDS = [((1, 1), False), ((3, 1), True), ((3, 1), False), ((1, 4), False), ((1, 4), True)]


def _random(grid: tuple[int, int], transposed: bool, cores: int, fold: str = "none") -> TuckerLinear:
    torch.manual_seed(2)
    bank = TuckerBank(BankSpec(WIDTH, RANK, cores))
    layer = TuckerLinear(TuckerSpec("bank", WIDTH, RANK, grid, cores, transposed, True, fold), bank)  # type: ignore[arg-type]
    for parameter in (*bank.parameters(), *layer.parameters()):
        torch.nn.init.normal_(parameter)
    bank.double()
    return layer.double()


def _dense(layer: TuckerLinear) -> torch.Tensor:
    """The matrix slice by slice, as the paper writes it."""
    bank, spec = layer.bank, layer.spec
    u, v = bank.left_down.weight.T, bank.right_up.weight.T
    if layer.mix is not None:
        shared = bank.cores.weight.reshape(-1, RANK, RANK)
        cores = torch.einsum("sl,lij->sij", layer.mix, shared)
    else:
        stacked = layer.core.weight.reshape(spec.grid[0], RANK, spec.grid[1], RANK).transpose(1, 2)
        cores = stacked.reshape(-1, RANK, RANK)
        cores = cores if spec.transposed else cores.transpose(1, 2)
    slices = u @ cores @ v
    if not spec.transposed:
        slices = slices.transpose(1, 2)
    down, across = spec.grid
    return slices.reshape(down, across, WIDTH, WIDTH).transpose(1, 2).reshape(spec.rows, spec.columns)


@pytest.mark.parametrize("cores", [0, 5])
@pytest.mark.parametrize(("grid", "transposed"), GRIDS)
def test_layer_equals_the_reconstruction(grid: tuple[int, int], transposed: bool, cores: int) -> None:
    layer = _random(grid, transposed, cores)
    x = torch.randn(2, 3, layer.in_features, dtype=torch.float64)
    expected = functional.linear(x, _dense(layer), layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-10)


@pytest.mark.parametrize(("grid", "transposed"), GRIDS)
def test_gradients(grid: tuple[int, int], transposed: bool) -> None:
    layer = _random(grid, transposed, cores=5)
    names = [*dict(layer.named_parameters()), *(f"bank.{n}" for n, _ in layer.bank.named_parameters())]
    assert len(names) == 5
    x = torch.randn(2, layer.in_features, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).square().sum().backward()
    assert all(p.grad is not None for p in (*layer.parameters(), *layer.bank.parameters()))


@pytest.mark.parametrize("fold", ["up", "down"])
@pytest.mark.parametrize(("grid", "transposed"), GRIDS)
def test_folded_layers_compute_the_same(fold: str, grid: tuple[int, int], transposed: bool) -> None:
    layer = _random(grid, transposed, cores=5)
    folded = TuckerLinear(TuckerSpec("bank", WIDTH, RANK, grid, 5, transposed, True, fold), layer.bank)  # type: ignore[arg-type]
    folded.double()
    with torch.no_grad():
        folded.folded.weight.copy_(layer.folded_weight(fold))  # type: ignore[arg-type]
        (folded.folded if fold == "up" else folded).bias.copy_(layer.bias)
    x = torch.randn(2, 3, layer.in_features, dtype=torch.float64)
    assert torch.allclose(folded(x), layer(x), atol=1e-10)


def test_full_ranks_reconstruct_exactly_and_errors_fall_with_the_rank() -> None:
    torch.manual_seed(0)
    slices = torch.randn(9, 14, 14)
    errors = []
    for rank in (4, 9, 14):
        u, s, v = shared_outer_factors(slices, rank)
        assert (u.shape, s.shape, v.shape) == ((14, rank), (9, rank, rank), (rank, 14))
        errors.append(float((u @ s @ v - slices).norm() / slices.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    u, p, c, v = tucker(slices, cores=9, rank=14)
    assert float((u @ torch.einsum("nl,lij->nij", p, c) @ v - slices).norm()) < 1e-4 * float(slices.norm())
    u, p, c, v = tucker(slices, cores=3, rank=8)
    assert (p.shape, c.shape) == ((9, 3), (3, 8, 8))


def test_a_tucker_tensor_is_found_again() -> None:
    torch.manual_seed(3)
    u, p, c, v = torch.randn(20, 5), torch.randn(11, 3), torch.randn(3, 5, 5), torch.randn(5, 20)
    slices = u @ torch.einsum("nl,lij->nij", p, c) @ v
    found_u, found_p, found_c, found_v = tucker(slices, cores=3, rank=5)
    found = found_u @ torch.einsum("nl,lij->nij", found_p, found_c) @ found_v
    assert float((found - slices).norm()) < 1e-4 * float(slices.norm())


@pytest.mark.parametrize("core", [True, False])
def test_low_rank_layer(core: bool) -> None:
    torch.manual_seed(4)
    layer = LowRankLinear(LowRankSpec(7, 10, 3, core, bias=True)).double()
    middle = layer.core.weight if layer.core is not None else torch.eye(3, dtype=torch.float64)
    x = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    dense = layer.up.weight @ middle @ layer.down.weight
    assert torch.allclose(layer(x), functional.linear(x, dense, layer.up.bias), atol=1e-12)
    assert torch.autograd.gradcheck(layer, (x,))
    assert sum(p.numel() for p in layer.parameters()) == layer.spec.parameters


def test_truncated_svd_is_the_nearest() -> None:
    matrix = torch.randn(9, 13)
    up, values, down = truncated_svd(matrix, 4)
    tail = torch.linalg.svdvals(matrix)[4:].norm()
    assert torch.allclose(((up * values) @ down - matrix).norm(), tail, atol=1e-4)
    with pytest.raises(UsageError, match="the rank must be 1 to 9, found 10"):
        truncated_svd(matrix, 10)


def test_blocks_are_a_grid() -> None:
    torch.manual_seed(5)
    layer = BlockLinear(BlockSpec((2, 3), LowRankSpec(4, 5, 2, core=True, bias=False), bias=True)).double()
    torch.nn.init.normal_(layer.bias)
    blocks = [part.up.weight @ part.core.weight @ part.down.weight for part in layer.parts]
    dense = torch.cat([torch.cat(blocks[:3], dim=1), torch.cat(blocks[3:], dim=1)])
    x = torch.randn(2, 15, dtype=torch.float64)
    assert torch.allclose(layer(x), functional.linear(x, dense, layer.bias), atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == layer.spec.parameters
