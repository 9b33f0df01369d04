"""The short trainings: rates by layer, and a loss that is no number."""

import pytest
import torch
from torch import nn

from edgeq.errors import EdgeqError
from edgeq.quant.calibrate.optimise import Rates, minimise, parameter_groups
from edgeq.quant.calibrate.state import grid_quantizer, store
from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.trainable_layers import TrainableLinear


def _layer(*, bits: int, size: float) -> TrainableLinear:
    plan = LayerPlan("layer", "linear", grid_for(bits, "balanced" if bits == 2 else None), method="grid")
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(bits)) * size
    return TrainableLinear(plan, nn.Parameter(weight), nn.Parameter(torch.zeros(6)))


def test_rates_are_in_steps_between_levels_and_in_proportion_to_float_matrices() -> None:
    model = nn.Module()
    model.small, model.large = _layer(bits=4, size=0.01), _layer(bits=2, size=1.0)
    model.positions = nn.Embedding(5, 8)
    model.norm = nn.LayerNorm(8)
    found = parameter_groups(model, Rates(0.01, 0.002, 0.1))
    groups = {id(group["params"][0]): group["lr"] for group in found}
    for layer in (model.small, model.large):
        assert groups[id(layer.weight)] == pytest.approx(0.01 * float(grid_quantizer(layer).scale().mean()))
        assert groups[id(grid_quantizer(layer).log_step)] == 0.002
    size = float(model.positions.weight.detach().square().mean().sqrt())
    assert groups[id(model.positions.weight)] == pytest.approx(0.1 * size)
    trained = {id(parameter) for group in found for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in model.parameters()}


def test_a_stored_choice_is_what_the_layer_rounds_to() -> None:
    layer = _layer(bits=2, size=1.0)
    generator = torch.Generator().manual_seed(9)
    levels = torch.randint(0, 4, (6, 8), generator=generator).float() - 1.5
    scale = torch.rand(6, generator=generator) + 0.1
    scale[2] = 0.0
    store(layer, torch.randn(6, 8, generator=generator), levels=levels, scale=scale)
    expected = levels * scale[:, None]
    torch.testing.assert_close(layer.decoded_weight().detach(), expected, rtol=1e-5, atol=1e-6)


def test_training_falls_and_a_loss_that_is_no_number_stops_it() -> None:
    parameter = nn.Parameter(torch.tensor([3.0]))
    groups = [{"params": [parameter], "lr": 0.1}]
    minimise(lambda wanted: (parameter - wanted).square().sum(), [1.0] * 100, groups=groups, steps=100, what="a test")
    assert abs(float(parameter.detach()) - 1.0) < 0.2
    with pytest.raises(EdgeqError, match="a test stopped at step 1 of 2, where the loss is nan"):
        minimise(lambda _: parameter.sum() * float("nan"), [1, 2], groups=groups, steps=2, what="a test")
