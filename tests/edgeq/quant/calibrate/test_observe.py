"""Which layers run when, and on what: the order in which layers are calibrated."""

import pytest
import torch
from torch import nn

from edgeq.quant.calibrate.observe import calls, groups, inputs_of, next_group
from edgeq.quant.calibrate.second_moments import SecondMoments


class _Model(nn.Module):
    """``q`` and ``k`` read one tensor, ``out`` reads what they make, ``shared`` runs twice, ``unused`` never."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in ("out", "k", "q", "shared", "unused"):
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.shared(x)
        made: torch.Tensor = self.shared(self.out(self.q(state) * self.k(state)))
        return made


def _run(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = model(batch)
    return made


def test_layers_come_in_the_order_in_which_they_run_and_those_of_one_input_together() -> None:
    model, batch = _Model(), torch.randn(2, 4)
    names = ["out", "k", "q", "shared", "unused"]
    counts = calls(model, _run, batch, names=names)
    assert counts == {"out": 1, "k": 1, "q": 1, "shared": 2}
    assert next_group(model, _run, batch, names=["out", "k", "q"]) == ["q", "k"]
    found = list(groups(model, _run, batch, names=names, counts=counts))
    assert found == [(["shared"], 2), (["q", "k"], 1), (["out"], 1)]


def test_a_layer_that_runs_twice_gives_both_inputs_and_hooks_do_not_stay() -> None:
    model, batch = _Model(), torch.randn(2, 4)
    first, second = inputs_of(model, _run, batch, name="shared", count=2)
    assert first is batch
    torch.testing.assert_close(model.shared(second), model(batch))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("shift", [True, False])
def test_second_moments_are_those_of_all_tokens(shift: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z, x = torch.randn(2, 3, 5, generator=generator) + 1, torch.randn(2, 3, 5, generator=generator) - 1
    moments = SecondMoments(5)
    moments.add(z[:1], x[:1])
    moments.add(z[1:], x[1:])
    square, cross = moments.centred(shift=shift)
    flat_z, flat_x = z.flatten(0, 1).double(), x.flatten(0, 1).double()
    if shift:
        flat_z, flat_x = flat_z - flat_z.mean(dim=0), flat_x - flat_x.mean(dim=0)
    torch.testing.assert_close(square, flat_z.T @ flat_z / 6, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cross, flat_x.T @ flat_z / 6, rtol=1e-5, atol=1e-6)
