"""Does training with a quantizer help? A small student learns a float teacher's outputs."""

import pytest
import torch
from torch import nn

from edgeq.quant.grids import grid_for
from edgeq.quant.plan import LayerPlan
from edgeq.quant.quantizers import QUANTIZERS
from edgeq.quant.trainable import make_trainable

CASES = [
    (name, bits) for name, quantizer in QUANTIZERS.items() for bits in quantizer.supported_bits if bits <= 2
]  # wider grids lose next to nothing to begin with


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 2
    return network


def _losses(method: str, bits: int, *, steps: int = 100, gradient: str = "method") -> tuple[float, float]:
    teacher, student = _network(), _network()
    plans = [
        LayerPlan(name, "linear", grid_for(bits), per_row=False, method=method, gradient=gradient, activation="dynamic")
        for name in ("0", "2")
    ]
    make_trainable(student, plans)
    optimizer = torch.optim.Adam(student.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        x = torch.randn(64, 24, generator=generator)
        loss = (student(x) - teacher(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], sum(losses[-10:]) / 10


@pytest.mark.parametrize(("method", "bits"), CASES)
def test_training_recovers_what_rounding_lost(method: str, bits: int) -> None:
    before, after = _losses(method, bits)
    assert after < 0.85 * before


def test_gamma_learns_more_from_all_weights_than_from_clipped_ones() -> None:
    _, own = _losses("module-scaling", 2)
    _, pact = _losses("module-scaling", 2, gradient="pact")
    assert own < 0.9 * pact
