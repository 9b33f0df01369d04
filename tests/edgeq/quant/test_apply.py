import pytest
import torch
from torch import nn

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.packing import unpack
from edgeq.formats.quantization_config import LayerKind
from edgeq.quant.apply import apply_plans
from edgeq.quant.float_layers import planned_bytes
from edgeq.quant.grids import grid_for
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.plan import CompressionResult, LayerPlan


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"table": nn.Embedding(9, 6), "first": nn.Linear(6, 5), "last": nn.Linear(5, 3, bias=False)}
    )


def _plans() -> list[LayerPlan]:
    return [
        LayerPlan("table", "embedding", grid_for(8)),
        LayerPlan("first", "linear", grid_for(4), per_row=False, activation="dynamic"),
        LayerPlan("last", "linear", None, keep_float_reason="because"),
    ]


def test_layers_are_replaced_and_recorded() -> None:
    model = _model()
    weight = model["first"].weight.detach().clone()
    seen: list[tuple[str, int, int]] = []
    records = apply_plans(model, _plans(), progress=lambda *step: seen.append(step))
    assert isinstance(model["table"], LowBitEmbedding)
    assert isinstance(model["first"], LowBitLinear)
    assert isinstance(model["last"], nn.Linear)
    table, first, last = records
    assert (table.bits, table.rows, table.columns, table.scales) == (8, 9, 6, 9)
    assert (first.bits, first.zero_point, first.scales, first.activation) == (4, 8.0, 1, "dynamic")
    assert first.stored_bytes == 16 * 4 * 1 + 4
    assert (last.bits, last.stored_bytes, last.kept_float_reason) == (32, 60, "because")
    error = (model["first"].dequantized() - weight).square().sum() / weight.square().sum()
    assert first.relative_error == pytest.approx(float(error), rel=1e-4)
    assert 0 < first.relative_error < 0.02
    assert [step[1:] for step in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert CompressionResult("r", "s", records).kept_float == {"last": "because"}


@pytest.mark.parametrize("kind", ["linear", "embedding"])
def test_7_bits_are_stored_in_8(kind: LayerKind) -> None:
    """Levels -63 to 63 around code 64, so that no code reaches the highest bit."""
    layer = nn.Linear(40, 20) if kind == "linear" else nn.Embedding(20, 40)
    model = nn.ModuleDict({"layer": layer})
    plan = LayerPlan("layer", kind, grid_for(7), activation="dynamic" if kind == "linear" else "none")
    wanted = planned_bytes(plan, layer)
    (record,) = apply_plans(model, [plan])
    packed = model["layer"]
    assert isinstance(packed, LowBitLinear | LowBitEmbedding)
    assert (packed.spec.bits, packed.spec.zero_point) == (record.bits, record.zero_point) == (8, 64.0)
    assert record.stored_bytes == packed.spec.packed_bytes + packed.spec.scale_bytes == wanted
    codes = unpack(packed.weight_packed.numpy(), 8, rows=20, columns=40)
    assert 1 <= int(codes.min()) <= 8
    assert 120 <= int(codes.max()) <= 127


def test_a_layer_without_a_plan_is_an_error_not_a_silent_float() -> None:
    with pytest.raises(UnsupportedError, match="'last'"):
        apply_plans(_model(), _plans()[:2])


def test_a_plan_without_a_layer_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match="'other'"):
        apply_plans(_model(), [*_plans(), LayerPlan("other", "linear", None)])


def test_a_plan_of_the_wrong_kind_is_an_error() -> None:
    plans = _plans()
    plans[0] = LayerPlan("table", "linear", grid_for(8))
    with pytest.raises(UnsupportedError, match="Embedding"):
        apply_plans(_model(), plans)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(value: float) -> None:
    model = _model()
    with torch.no_grad():
        model["first"].weight[2, 3] = value
    with pytest.raises(FormatError, match="'first'"):
        apply_plans(model, _plans())
