import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError, FormatError
from edgeq.formats.low_bit import ZERO_POINTS, PackedMatrix, levels
from edgeq.quant.exact_sum import exact_linear
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.rounding import quantize_dynamic, quantize_static, ulp_noise

GRIDS = [(bits, zero) for bits, zeros in ZERO_POINTS.items() for zero in zeros]


def _fill(module: Any, seed: int = 0) -> Any:
    spec = module.spec
    generator = torch.Generator().manual_seed(seed)
    lowest, highest = levels(spec.bits, spec.zero_point)
    codes = torch.randint(
        lowest, highest + 1, (spec.rows, spec.columns), generator=generator, dtype=torch.uint8
    )
    module.set_codes(codes, 0.01 + torch.rand(spec.scales, generator=generator))
    if getattr(module, "bias", None) is not None:
        module.bias.copy_(torch.randn(spec.rows, generator=generator))
    return module


def _linear(
    rows: int = 7,
    columns: int = 13,
    bits: int = 4,
    zero: float = 8.0,
    *,
    per_row: bool = True,
    **options: Any,
) -> LowBitLinear:
    spec = PackedMatrix(rows, columns, bits, zero, rows if per_row else 1)
    return _fill(LowBitLinear(spec, **{"activation": "dynamic", "bias": True, **options}))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 50),
    grid=st.sampled_from(GRIDS),
    per_row=st.booleans(),
    bias=st.booleans(),
)
def test_dynamic_linear_is_integer_arithmetic_rounded_once(
    rows: int, columns: int, grid: tuple[int, float], per_row: bool, bias: bool
) -> None:
    layer = _linear(rows, columns, *grid, per_row=per_row, bias=bias)
    x = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(1))
    q, a_scale = quantize_dynamic(x)
    doubled = (2 * layer.codes().numpy().astype(np.int64) - int(2 * grid[1])).T
    total = (q.numpy().astype(np.int64) @ doubled).astype(np.float64) / 2
    expected = total.astype(np.float32) * (layer.scale.numpy() * a_scale.numpy())
    expected = expected + (layer.bias.numpy() if layer.bias is not None else np.float32(0))
    np.testing.assert_array_equal(layer(x).numpy(), expected)


def test_static_linear_uses_its_scale() -> None:
    layer = _linear(activation="static")
    layer.activation_scale.fill_(0.02)
    x = torch.randn(5, 13)
    q = quantize_static(x, torch.tensor([0.02]))
    expected = (q @ (layer.codes().float() - 8).T) * (layer.scale * torch.tensor([0.02])) + layer.bias
    assert torch.equal(layer(x), expected)


def test_weight_only_linear_is_a_float_linear_on_the_decoded_weights() -> None:
    layer = _linear(activation="none")
    x = torch.randn(5, 13)
    expected = torch.nn.functional.linear(x.double(), layer.dequantized().double(), layer.bias.double())
    assert torch.allclose(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "zero"), GRIDS)
def test_sums_are_exact_where_float32_alone_would_round(bits: int, zero: float) -> None:
    # Worst case: every product at its largest, plus a small odd one that rounding would swallow.
    columns = 30_001
    lowest, highest = levels(bits, zero)
    centred = torch.full((2, columns), highest - zero)
    centred[1] = torch.where(torch.arange(columns) % 3 == 0, lowest - zero, highest - zero)
    q = torch.full((1, columns), 127.0)
    q[0, -1] = 1.0
    expected = (q.double() @ centred.double().T).float()
    assert torch.equal(exact_linear(q, centred, largest_level=max(zero, 2**bits - 1 - zero)), expected)


def test_a_missing_bias_is_added_as_zero() -> None:
    # Zero activations times negative weights give -0.0, which the ONNX op's added zero turns into 0.0.
    layer = _linear(bias=False)
    assert not torch.signbit(layer(-torch.zeros(1, 13))).any()


def test_the_decoded_weights_follow_the_buffers() -> None:
    first, second = _linear(), _linear()
    _fill(second, seed=5)
    x = torch.randn(4, 13)
    before = first(x)
    assert not torch.equal(before, second(x))
    first.load_state_dict(second.state_dict())
    assert torch.equal(first(x), second(x))
    _fill(first, seed=0)
    assert torch.equal(first(x), before)


def test_the_state_holds_packed_tensors_only() -> None:
    layer = _linear()
    layer(torch.randn(1, 13))
    assert set(layer.state_dict()) == {"weight_packed", "scale", "bias"}
    assert layer.state_dict()["weight_packed"].shape == layer.spec.packed_shape
    assert copy.deepcopy(layer)(torch.ones(1, 13)).equal(layer(torch.ones(1, 13)))


def test_autocast_does_not_reach_the_integer_sums() -> None:
    layer = _linear(columns=400)
    x = torch.randn(3, 400)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("activation", ["dynamic", "none"])
def test_noise_reaches_every_linear(activation: str) -> None:
    layer = _linear(columns=400, activation=activation)
    x = torch.randn(64, 400)
    with ulp_noise(3):
        noisy = layer(x)
    assert not torch.equal(noisy, layer(x))


def test_other_float_types_are_refused() -> None:
    with pytest.raises(EdgeqError, match="float16"):
        _linear()(torch.randn(1, 13).half())


def test_unknown_activation_is_refused() -> None:
    with pytest.raises(FormatError, match="sometimes"):
        LowBitLinear(PackedMatrix(1, 1, 8, 128.0, 1), activation="sometimes", bias=False)  # type: ignore[arg-type]


def test_codes_of_another_shape_are_refused() -> None:
    with pytest.raises(FormatError, match="expected 7 x 13"):
        _linear().set_codes(torch.zeros(13, 7, dtype=torch.uint8), torch.ones(7))


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize(("bits", "zero"), GRIDS)
def test_embedding_looks_rows_up(bits: int, zero: float, per_row: bool) -> None:
    table = _fill(LowBitEmbedding(PackedMatrix(19, 10, bits, zero, 19 if per_row else 1)))
    ids = torch.tensor([[0, 18, 3], [3, 3, 7]])
    expected = table.scale.reshape(-1, 1) * (table.codes().float() - zero)
    assert torch.equal(table(ids), expected[ids])
    assert not table.is_decoded  # a large table is not decoded for some of its rows
    for outside in (-1, 19):  # 19 is a row of padding
        with pytest.raises(IndexError):
            table(torch.tensor([3, outside]))
    assert table(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0, 10)
    assert torch.equal(table(ids), table.dequantized()[ids])
    assert table.is_decoded
    assert torch.equal(table(ids), expected[ids])


def test_modules_describe_themselves() -> None:
    assert "7 x 13, 4 bits, zero point 8.0, 7 scales, activation dynamic, bias True" in repr(_linear())
    assert (_linear().in_features, _linear().out_features) == (13, 7)


@pytest.mark.parametrize("activation", ["dynamic", "static"])
def test_more_tokens_than_are_scaled_at_a_time(activation: str) -> None:
    layer = _linear(activation=activation)
    x = torch.randn(300, 13, generator=torch.Generator().manual_seed(2))
    whole = layer(x)
    assert torch.equal(whole, torch.stack([layer(one) for one in x]))
    assert torch.equal(whole.reshape(3, 100, 7), layer(x.reshape(3, 100, 13)))
    assert torch.equal(whole, layer(x.clone().requires_grad_()).detach())
