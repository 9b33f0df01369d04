import pytest
import torch

from edgeq.quant.activation_training import (
    DynamicActivation,
    LearnedClip,
    LearnedStep,
    StaticActivation,
    make_activation,
)
from edgeq.rounding import quantize_dynamic, quantize_static

STATIC = [LearnedStep, LearnedClip]


def _input(scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(3, 5, 21, generator=torch.Generator().manual_seed(0))


def test_dynamic_activations_are_the_device_values_and_pass_the_gradient() -> None:
    x = _input().requires_grad_()
    y = DynamicActivation()(x)
    q, scale = quantize_dynamic(x.detach())
    assert torch.equal(y, q * scale)
    outer = torch.randn(3, 5, 21)
    y.backward(outer)
    assert torch.equal(x.grad, outer)


@pytest.mark.parametrize("kind", STATIC)
def test_static_activations_are_the_device_values(kind: type[StaticActivation]) -> None:
    activation = kind()
    x = _input()
    y = activation(x)
    assert torch.equal(y, quantize_static(x, activation.scale()) * activation.scale())
    assert activation(3 * x).abs().max() <= 127 * activation.scale()


def test_a_learned_step_has_the_gradient_of_lsq() -> None:
    activation = LearnedStep()
    activation(_input())
    x = _input(20.0).requires_grad_()
    outer = torch.randn(3, 5, 21)
    activation(x).backward(outer)
    exact, factor = x.detach().double().requires_grad_(), (21 * 127) ** -0.5
    bound = activation.bound.detach().double().requires_grad_()
    step = bound * factor + (bound * (1 - factor)).detach()
    steps = torch.clamp(exact / step, -127, 127)
    expected = (steps + (torch.round(steps) - steps).detach()) * step
    expected.backward(outer.double())
    assert bool((x.detach().abs() > 127 * activation.scale()).any())
    torch.testing.assert_close(x.grad.double(), exact.grad)
    torch.testing.assert_close(activation.bound.grad.double(), bound.grad, rtol=1e-4, atol=1e-4)


def test_a_learned_clip_has_the_gradient_of_pact() -> None:
    activation = LearnedClip()
    activation(_input())
    x = _input(2.0).requires_grad_()
    outer = torch.randn(3, 5, 21)
    activation(x).backward(outer)
    beyond = x.detach().abs() >= activation.bound.detach()
    assert bool(beyond.any())
    assert torch.equal(x.grad, outer * ~beyond)
    torch.testing.assert_close(activation.bound.grad, (outer * x.detach().sign() * beyond).sum().reshape(1))


@pytest.mark.parametrize("kind", STATIC)
def test_the_first_batch_sets_the_scale_once(kind: type[StaticActivation]) -> None:
    activation = kind()
    assert not bool(activation.started)
    activation(_input())
    first = activation.scale()
    activation(_input(9.0))
    assert torch.equal(activation.scale(), first)
    other = kind()
    other.load_state_dict(activation.state_dict())
    other(_input(9.0))
    assert torch.equal(other.scale(), first)


@pytest.mark.parametrize("kind", STATIC)
def test_evaluation_does_not_set_the_scale(kind: type[StaticActivation]) -> None:
    activation, other = kind().eval(), kind()
    assert torch.equal(activation(_input()), other(_input()))
    assert not bool(activation.started)
    assert bool(other.started)


def test_a_bound_that_went_negative_leaves_a_positive_scale() -> None:
    for kind in STATIC:
        activation = kind()
        activation(_input())
        activation.bound.data.fill_(-1.0)
        assert float(activation.scale()) > 0
        assert bool(torch.isfinite(activation(_input())).all())


def test_each_mode_has_its_quantizer() -> None:
    assert make_activation("none", "lsq") is None
    assert isinstance(make_activation("dynamic", "lsq"), DynamicActivation)
    assert isinstance(make_activation("static", "lsq"), LearnedStep)
    assert isinstance(make_activation("static", "pact"), LearnedClip)
