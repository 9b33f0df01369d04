"""Every quantizer against a formula written by hand, in float64, with gradients from autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import FormatError, UsageError
from edgeq.formats.low_bit import PackedMatrix
from edgeq.quant.grids import grid_for
from edgeq.quant.modules import LowBitEmbedding
from edgeq.quant.quantizers import METHOD_OF_BITS, QUANTIZERS, make_quantizer, method_at

CASES = [
    (name, bits, grid, per_row)
    for name, quantizer in QUANTIZERS.items()
    for bits in quantizer.supported_bits
    for grid in (quantizer.two_bit_grids if bits == 2 else [None])
    for per_row in ([False] if name == "uniform-asymmetric" else [False, True])
]


def _weight(rows: int = 7, columns: int = 33, seed: int = 0) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight *= torch.linspace(0.3, 1.7, rows).reshape(-1, 1)
    weight[1, 2], weight[2, 3] = 3.5, -3.1  # beyond TernaryBERT's and PACT's clip of 2.5
    return weight


def _quantizer(name: str, bits: int, grid: str | None = None, per_row: bool = False, **options):
    quantizer = make_quantizer(name, bits=bits, grid=grid, per_row=per_row, **options)
    quantizer.initialise(_weight())
    return quantizer


def _round(x: torch.Tensor) -> torch.Tensor:
    return x + (torch.round(x) - x).detach()


def _scaled_gradient(value: torch.Tensor, factor: float) -> torch.Tensor:
    return value * factor + (value * (1 - factor)).detach()


def _mean(values: torch.Tensor, per_row: bool) -> torch.Tensor:
    return values.mean(dim=1, keepdim=True) if per_row else values.mean()


def _peak(values: torch.Tensor, per_row: bool) -> torch.Tensor:
    return values.amax(dim=1, keepdim=True) if per_row else values.amax()


def _module_scaling(w, learned, bits, grid, per_row):
    k = 2 ** (bits - 1) - 1
    alpha = learned["gamma"].reshape(-1, 1) * _mean(w.abs(), per_row).detach()
    return alpha * _round(k * torch.maximum(torch.minimum(w, alpha), -alpha) / alpha) / k


def _pact(w, learned, bits, grid, per_row):
    k = 2 ** (bits - 1) - 1
    lower, upper = learned["lower"].reshape(-1, 1), learned["upper"].reshape(-1, 1)
    clipped = torch.maximum(torch.minimum(w, upper), lower)
    scale = (_peak(clipped.abs(), per_row) / k).detach()
    return _round(clipped / scale) * scale


def _lsq(w, learned, bits, grid, per_row):
    lowest, highest = (-127 if bits == 8 else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1
    n = w.shape[1] if per_row else w.numel()
    step = _scaled_gradient(learned["step"].reshape(-1, 1), 1 / math.sqrt(n * highest))
    return _round(torch.clamp(w / step, lowest, highest)) * step


def _lsq_symmetric(w, learned, bits, grid, per_row):
    highest = 2 ** (bits - 1) - 1
    n = w.shape[1] if per_row else w.numel()
    step = _scaled_gradient(learned["step"].reshape(-1, 1), 1 / math.sqrt(n * highest))
    return _round(torch.clamp(w / step, -highest, highest)) * step


def _passing(w: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return w + (value - w).detach()


def _laq(w, learned, bits, grid, per_row):
    k = 2 ** (bits - 1) - 1
    if bits == 1:
        alpha = _mean(w.abs(), per_row)
        return _passing(w, torch.where(w >= 0, alpha, -alpha))
    total = (lambda v: v.sum(dim=1, keepdim=True)) if per_row else torch.sum
    b = w.sign()
    for _ in range(11):
        alpha = total((b * w).abs()) / total(b.abs())
        b = torch.round(k * torch.clamp(w / alpha, -1, 1)) / k
    return _passing(w, alpha * torch.round(k * torch.clamp(w / alpha, -1, 1)) / k)


def _twn(w, learned, bits, grid, per_row):
    large = w.abs() > 0.7 * _mean(w.abs(), per_row)
    total = (lambda v: v.sum(dim=1, keepdim=True)) if per_row else torch.sum
    return _passing(w, total(w.abs() * large) / total(large) * w.sign() * large)


def _bwn(w, learned, bits, grid, per_row):
    return _passing(w, w.sign() * _mean(w.abs(), per_row))


def _uniform(w, learned, bits, grid, per_row):
    scale = _peak(w.abs(), per_row) / (2 ** (bits - 1) - 1)
    return _passing(w, torch.round(w / scale) * scale)


def _asymmetric(w, learned, bits, grid, per_row):
    lowest = 1 if bits == 8 else 0
    scale = (w.max() - w.min()) / (2**bits - 1 - lowest)
    zero = torch.round(-w.min() / scale) + lowest
    return _passing(w, (torch.clamp(torch.round(w / scale + zero), lowest, 2**bits - 1) - zero) * scale)


def _elastic(w, learned, bits, grid, per_row):
    factor = 1 / math.sqrt(w.numel() * (2 ** (bits - 1) - 1 if bits > 2 else 1))
    alpha = _scaled_gradient(learned["step"].reshape(-1, 1), factor)
    if bits > 2:
        lowest, highest = (-127 if bits == 8 else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1
        return _round(torch.clamp(w / alpha, lowest, highest)) * alpha
    if bits == 1:
        passing = w * (w.abs() <= alpha)
        return w.sign() * alpha + passing - passing.detach()
    levels, shift = (2, 0.5) if grid == "balanced" else (1.5, 0.0)
    return (_round(torch.clamp(w / alpha, -0.99, 0.99) * levels - shift) + shift) / levels * alpha


def _statistics(w, learned, bits, grid, per_row):
    alpha = (_mean(w.abs(), per_row) * (1 if bits == 1 else 4 / 3)).detach()
    clipped = torch.clamp(w / alpha, -1, 1)
    return alpha * (_round(clipped) if bits == 2 else _passing(clipped, w.sign()))


def _grid(w, learned, bits, grid, per_row):
    del per_row
    step = learned["log_step"].exp().reshape(-1, 1)
    if bits == 1:
        levels = torch.where(w.detach() >= 0, 0.5, -0.5).double()
        fixed = step.detach()
        return _passing(torch.clamp(w, -fixed, fixed), fixed * levels) + (step - fixed) * levels
    shift = 0.5 if grid == "balanced" else 0.0
    last = 1.5 if grid == "balanced" else 2 ** (bits - 1) - 1
    scaled = w / step
    levels = (torch.round(scaled.detach() - shift) + shift).clamp(-last, last)
    return step * _passing(torch.clamp(scaled, -last - 0.5, last + 0.5), levels)


FORMULAS: dict[str, Callable] = {
    "module-scaling": _module_scaling,
    "pact": _pact,
    "lsq": _lsq,
    "lsq-symmetric": _lsq_symmetric,
    "laq": _laq,
    "twn": _twn,
    "bwn": _bwn,
    "uniform": _uniform,
    "uniform-asymmetric": _asymmetric,
    "elastic": _elastic,
    "statistics": _statistics,
    "grid": _grid,
}


@pytest.mark.parametrize(("name", "bits", "grid", "per_row"), CASES)
def test_values_and_gradients_are_those_of_the_formula(name: str, bits: int, grid: str, per_row: bool) -> None:
    quantizer = _quantizer(name, bits, grid, per_row)
    with torch.no_grad():  # away from the start, where the largest weight may sit exactly on the clip
        for value in quantizer.state_dict().values():
            if value.is_floating_point():
                value *= 0.93
    learned = {n: p.detach().double().requires_grad_() for n, p in quantizer.named_parameters()}
    learned |= {n: b.double().clone() for n, b in quantizer.named_buffers()}
    weight = _weight().requires_grad_()
    outer = torch.randn(7, 33, generator=torch.Generator().manual_seed(3))
    found = quantizer(weight)
    found.backward(outer)

    exact = _weight().double().requires_grad_()
    expected = FORMULAS[name](exact, learned, bits, grid, per_row)
    expected.backward(outer.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)
    for parameter_name, parameter in quantizer.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(), learned[parameter_name].grad, rtol=1e-4, atol=1e-5, msg=parameter_name
        )


LEARNED = [case for case in CASES if case[0] in ("module-scaling", "lsq", "lsq-symmetric", "elastic")]


@pytest.mark.parametrize(("name", "bits", "grid", "per_row"), LEARNED)
def test_learned_factors_have_the_derivative_of_clipped_weights(name: str, bits: int, grid: str, per_row: bool) -> None:
    """Finite differences: a clipped weight keeps its code while a step moves, and no straight-through term enters."""
    quantizer = _quantizer(name, bits, grid, per_row)
    (parameter,) = quantizer.parameters()
    with torch.no_grad():
        parameter *= 0.1
    weight = _weight()
    outer = torch.randn(7, 33, generator=torch.Generator().manual_seed(3))
    outer *= 1 - quantizer.inside(weight, quantizer.encode(weight)[1])
    assert bool(outer.any())
    quantizer(weight).backward(outer)
    shared = weight.shape[1] if per_row and name.startswith("lsq") else weight.numel()
    damping = {"module-scaling": 1.0}.get(name, math.sqrt(shared * (2 ** (bits - 1) - 1 if bits > 1 else 1)))
    epsilon = 1e-3
    with torch.no_grad():
        before = (quantizer(weight).double() * outer).sum(dim=1)
        parameter *= 1 + epsilon
        by_row = ((quantizer(weight).double() * outer).sum(dim=1) - before) / (epsilon * parameter / (1 + epsilon))
    expected = by_row if per_row else by_row.sum().reshape(1)
    torch.testing.assert_close(parameter.grad.double() * damping, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("name", "bits", "grid", "per_row"), CASES)
def test_what_training_sees_is_what_packed_weights_decode_to(name: str, bits: int, grid: str, per_row: bool) -> None:
    quantizer = _quantizer(name, bits, grid, per_row)
    weight = _weight()
    trained = quantizer(weight.clone().requires_grad_()).detach()
    codes, scale = quantizer.encode(weight)
    assert torch.equal(codes, codes.round())
    assert codes.min() >= (1 if bits in (7, 8) else 0)
    assert codes.max() <= 2**bits - 1
    assert scale.dtype == torch.float32
    assert scale.shape == ((7,) if per_row else (1,))
    packed = LowBitEmbedding(PackedMatrix(7, 33, grid_for(bits).stored_bits, quantizer.zero_point, scale.numel()))
    packed.set_codes(codes.to(torch.uint8), scale)
    assert torch.equal(packed.dequantized().view(torch.int32), trained.view(torch.int32))  # signs of zeros, too
    with torch.no_grad():
        assert torch.equal(quantizer.eval()(weight), trained)


@pytest.mark.parametrize(("name", "bits", "grid", "per_row"), CASES)
def test_rows_alone_are_the_rows_of_the_whole(name: str, bits: int, grid: str, per_row: bool) -> None:
    rows = torch.tensor([5, 0, 2])
    outer = torch.randn(3, 33, generator=torch.Generator().manual_seed(3))
    results = []
    for part in (False, True):
        quantizer = _quantizer(name, bits, grid, per_row)
        weight = _weight().requires_grad_()
        found = quantizer.decode_rows(weight, rows) if part else quantizer(weight)[rows]
        found.backward(outer)
        results.append([found.detach(), weight.grad, *(p.grad for p in quantizer.parameters())])
    for whole, alone in zip(*results, strict=True):
        assert torch.equal(whole, alone)


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(CASES),
    rows=st.integers(1, 9),
    columns=st.integers(1, 20),
    spread=st.floats(1e-6, 1e3),
    zeros=st.sampled_from(["none", "row", "all"]),
)
def test_any_matrix_is_encoded(case: tuple, rows: int, columns: int, spread: float, zeros: str) -> None:
    name, bits, grid, per_row = case
    weight = spread * torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 50 + columns))
    if zeros != "none":
        weight[: rows if zeros == "all" else 1] = 0
    quantizer = make_quantizer(name, bits=bits, grid=grid, per_row=per_row)
    quantizer.initialise(weight)
    codes, scale = quantizer.encode(weight)
    assert bool(torch.isfinite(scale).all())
    assert bool((scale >= 0).all())
    assert codes.min() >= (1 if bits in (7, 8) else 0)
    assert codes.max() <= 2**bits - 1
    PackedMatrix(rows, columns, grid_for(bits).stored_bits, quantizer.zero_point, scale.numel())
    weight.requires_grad_()
    quantizer(weight).sum().backward()
    assert bool(torch.isfinite(weight.grad).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in quantizer.parameters())


def test_ternary_levels_of_two_methods_meet_where_they_should() -> None:
    """QuantGPT's threshold is alpha/2, TWN's 0.7 of the mean: the same where gamma is 1.4."""
    weight = _weight()
    scaling = _quantizer("module-scaling", 2)
    with torch.no_grad():
        scaling.gamma.fill_(1.4)
    assert torch.equal(scaling.encode(weight)[0], _quantizer("twn", 2).encode(weight)[0])
    with torch.no_grad():
        scaling.gamma.fill_(2.0)
    assert not torch.equal(scaling.encode(weight)[0], _quantizer("twn", 2).encode(weight)[0])


def test_gamma_starts_where_gaussian_weights_want_it() -> None:
    weight = torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
    for bits, expected, slack in ((2, 1.5, 0.1), (4, 3.0, 0.3), (8, 4.6, 0.7)):
        quantizer = make_quantizer("module-scaling", bits=bits)
        quantizer.initialise(weight)
        assert float(quantizer.gamma.detach()) == pytest.approx(expected, abs=slack)


def test_named_gradients_differ_where_they_should() -> None:
    weight = _weight()
    outer = torch.randn(7, 33, generator=torch.Generator().manual_seed(3))

    def gradients(name: str, bits: int, gradient: str) -> tuple[torch.Tensor, ...]:
        quantizer = _quantizer(name, bits, gradient=gradient)
        latent = weight.clone().requires_grad_()
        quantizer(latent).backward(outer)
        return latent.grad, *(p.grad for p in quantizer.parameters())

    passed, gamma = gradients("module-scaling", 2, "identity")
    clipped, own = gradients("module-scaling", 2, "clipped")
    assert torch.equal(passed, outer)
    assert torch.equal(gamma, own)
    quantizer = _quantizer("module-scaling", 2)
    inside = weight.abs() < quantizer.gamma.detach() * weight.abs().mean()
    assert torch.equal(clipped, outer * inside)
    _, pact = gradients("module-scaling", 2, "pact")
    beyond = (outer * weight.sign() * ~inside).sum() * weight.abs().mean()
    torch.testing.assert_close(pact, beyond.reshape(1))
    for name, bits in (("bwn", 1), ("twn", 2)):
        (passed,), (clipped,) = gradients(name, bits, "method"), gradients(name, bits, "clipped")
        assert torch.equal(passed, outer)
        assert torch.equal(clipped, outer * (weight.abs() < 2.5))
        assert not torch.equal(clipped, outer)


def test_curvature_decides_what_laq_fits() -> None:
    quantizer = _quantizer("laq", 2)
    weight = _weight()
    equal = quantizer.encode(weight)[1]
    important = torch.zeros_like(weight)
    important[:, :3] = 1.0
    quantizer.set_curvature(important)
    quantizer(weight.clone().requires_grad_())
    weighted = quantizer.encode(weight)[1]
    assert not torch.equal(weighted, equal)

    def loss(scale: torch.Tensor) -> float:
        levels = torch.round(weight / scale).clamp(-1, 1) * scale
        return float(((levels - weight).square() * important).sum())

    assert loss(weighted) < loss(equal)
    state = quantizer.state_dict()
    other = _quantizer("laq", 2)
    other.load_state_dict(state)
    assert torch.equal(other.eval().encode(weight)[1], weighted)
    with pytest.raises(UsageError, match="negative"):
        quantizer.set_curvature(-important)


def test_bits_can_be_lowered() -> None:
    lowered = (("module-scaling", 8, 2), ("elastic", 8, 1), ("lsq", 4, 2), ("lsq-symmetric", 4, 2), ("laq", 8, 1))
    for name, start, end in lowered:
        quantizer = _quantizer(name, start)
        quantizer.set_bits(end, _weight())
        fresh = _quantizer(name, end)
        assert (quantizer.bits, quantizer.zero_point) == (fresh.bits, fresh.zero_point)
        for found, expected in zip(quantizer.encode(_weight()), fresh.encode(_weight()), strict=True):
            assert torch.equal(found, expected)
    with pytest.raises(UsageError, match="2, 4, 8 bits, found 1"):
        _quantizer("module-scaling", 8).set_bits(1, _weight())


def test_state_names_the_bits() -> None:
    quantizer = _quantizer("elastic", 8, per_row=True)
    other = _quantizer("elastic", 1, per_row=True)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(_weight()), quantizer(_weight()))
    with pytest.raises(FormatError, match="cannot load the state of a 8-bit layer"):
        _quantizer("bwn", 1).load_state_dict({"_extra_state": torch.tensor([8, 256])})


def test_learned_factors_stay_storable() -> None:
    for name in ("module-scaling", "lsq", "elastic"):
        quantizer = _quantizer(name, 2)
        with torch.no_grad():
            for parameter in quantizer.parameters():
                parameter.fill_(-1.0)
        assert float(quantizer.encode(_weight())[1]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic", "bits": 2}, "found 'magic'"),
        ({"method": "bwn", "bits": 2}, "is for 1 bits, found 2"),
        ({"method": "module-scaling", "bits": 3}, "found 3"),
        ({"method": "uniform", "bits": 4, "gradient": "clipped"}, "'clipped' makes no sense"),
        ({"method": "bwn", "bits": 1, "gradient": "pact"}, "'pact' makes no sense"),
        ({"method": "twn", "bits": 2, "grid": "balanced"}, "no balanced 2-bit grid"),
        ({"method": "uniform-asymmetric", "bits": 4, "per_row": True}, "one zero point"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_quantizer(**arguments)


def test_stand_ins_are_used_only_where_needed() -> None:
    assert method_at("elastic", 8) == "elastic"
    assert [method_at("bwn", bits) for bits in (8, 4, 2, 1)] == ["uniform", "uniform", "twn", "bwn"]
    assert set(METHOD_OF_BITS.values()) <= set(QUANTIZERS)
    for method, bits in (("magic", 2), ("bwn", 3)):
        with pytest.raises(UsageError, match="found"):
            method_at(method, bits)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(
    ("name", "bits"),
    [("module-scaling", 2), ("lsq", 4), ("lsq-symmetric", 2), ("pact", 8), ("elastic", 1), ("elastic", 2)],
)
def test_learned_numbers_start_where_they_are_told(name: str, bits: int, per_row: bool) -> None:
    weight = _weight()
    mean = weight.abs().mean(dim=1) if per_row else weight.abs().mean().reshape(1)
    levels, scale = _quantizer(name, bits, per_row=per_row, start=1.25).rounded(weight)
    # The largest level is where it was asked to be: all weights beyond it are rounded to it.
    beyond = weight > 1.3 * mean.reshape(-1, 1)  # LSQ has one level more below zero
    largest = (levels * scale.reshape(-1, 1)).abs()[beyond]
    assert torch.allclose(largest, (1.25 * mean).reshape(-1, 1).expand_as(weight)[beyond], rtol=1e-4)


@pytest.mark.parametrize("name", ["module-scaling", "lsq-symmetric", "pact"])
def test_the_start_of_least_error_is_one_for_all_methods_with_these_levels(name: str) -> None:
    errors = {}
    for start in ("error", 0.7, 3.0):
        decoded = _quantizer(name, 2, start=start)(_weight()).detach()
        errors[start] = float((decoded - _weight()).square().sum())
    assert errors["error"] < min(errors[0.7], errors[3.0])
    own = _quantizer("module-scaling", 2, start="method")(_weight()).detach()
    assert torch.allclose(_quantizer(name, 2, start="error")(_weight()).detach(), own, atol=1e-6)


def test_what_learns_nothing_has_no_start() -> None:
    with pytest.raises(UsageError, match="'twn' learns no number that could start elsewhere"):
        make_quantizer("twn", bits=2, start="error")
    with pytest.raises(UsageError, match="a number above 0, found -1"):
        make_quantizer("lsq", bits=2, start=-1.0)
