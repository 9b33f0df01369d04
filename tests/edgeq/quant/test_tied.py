import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.errors import FormatError
from edgeq.formats.low_bit import PackedMatrix
from edgeq.quant.apply import apply_plans
from edgeq.quant.buffers import drop_zero_buffers
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.grids import grid_for
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.plan import LayerPlan
from edgeq.quant.tied import TiedLowBitEmbedding, TiedLowBitLinear


def _table(rows: int = 19, columns: int = 10) -> LowBitEmbedding:
    generator = torch.Generator().manual_seed(0)
    table = LowBitEmbedding(PackedMatrix(rows, columns, 4, 8.0, rows))
    codes = torch.randint(1, 16, (rows, columns), generator=generator, dtype=torch.uint8)
    table.set_codes(codes, 0.01 + torch.rand(rows, generator=generator))
    return table


@pytest.mark.parametrize("activation", ["dynamic", "none"])
def test_a_tied_head_is_a_linear_layer_on_the_table(activation: str) -> None:
    table = _table()
    tied = TiedLowBitLinear(table, activation=activation)  # type: ignore[arg-type]
    own = LowBitLinear(table.spec, activation=activation, bias=False)  # type: ignore[arg-type]
    own.set_codes(table.codes(), table.scale)
    x = torch.randn(3, 4, 10)
    assert torch.equal(tied(x), own(x))
    assert tied.op_type == own.op_type == "LowBitLinear"


def test_a_tied_embedding_is_the_table() -> None:
    table = _table()
    ids = torch.tensor([[0, 18, 3]])
    assert torch.equal(TiedLowBitEmbedding(table)(ids), table(ids))


def test_tied_layers_have_no_state_and_follow_the_table() -> None:
    model = nn.ModuleDict({"table": _table()})
    model["head"] = TiedLowBitLinear(model["table"], activation="dynamic")
    assert set(model.state_dict()) == {"table.weight_packed", "table.scale"}
    twin = copy.deepcopy(model)
    assert twin["head"].table is twin["table"]
    x = torch.randn(2, 10)
    before = model["head"](x)
    twin.load_state_dict({**twin.state_dict(), "table.scale": 2 * twin["table"].scale})
    assert torch.allclose(twin["head"](x), 2 * before)
    assert torch.equal(model["head"](x), before)


def _tied_model() -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"table": nn.Embedding(9, 6), "conv": Conv1D(5, 6), "head": nn.Linear(6, 9, bias=False)}
    )
    model["head"].weight = model["table"].weight
    return model


def _plans(bits: int = 8) -> list[LayerPlan]:
    grid = grid_for(bits) if bits else None
    return [
        LayerPlan("table", "embedding", grid, keep_float_reason=None if bits else "because"),
        LayerPlan("conv", "linear", grid_for(4), activation="dynamic"),
        LayerPlan("head", "linear", grid, activation="dynamic", tied_to="table"),
    ]


def test_conv1d_becomes_a_linear_layer_of_its_transpose() -> None:
    model = _tied_model()
    weight, bias = model["conv"].weight.detach().clone(), model["conv"].bias.detach().clone() + 1
    model["conv"].bias.data.copy_(bias)
    assert torch.equal(weight_rows(model["conv"]), weight.T)
    apply_plans(model, _plans())
    linear = nn.Linear(6, 5)
    linear.weight.data.copy_(weight.T)
    linear.bias.data.copy_(bias)
    other = nn.ModuleDict({"linear": linear})
    apply_plans(other, [LayerPlan("linear", "linear", grid_for(4), activation="dynamic")])
    x = torch.randn(4, 6)
    assert torch.equal(model["conv"](x), other["linear"](x))
    assert torch.equal(model["conv"].weight_packed, other["linear"].weight_packed)


def test_tied_plans_are_recorded_once() -> None:
    model = _tied_model()
    table, _, head = apply_plans(model, _plans())
    assert isinstance(model["head"], TiedLowBitLinear)
    assert (table.stored_bytes > 0, head.stored_bytes, head.tied_to) == (True, 0, "table")
    assert (head.rows, head.columns, head.relative_error) == (9, 6, table.relative_error)


def test_a_float_table_keeps_its_head() -> None:
    model = _tied_model()
    _, _, head = apply_plans(model, _plans(0))
    assert model["head"].weight is model["table"].weight
    assert (head.bits, head.stored_bytes, head.activation) == (32, 0, "none")
    assert "table" in (head.kept_float_reason or "")


def test_weights_that_differ_cannot_be_tied() -> None:
    model = _tied_model()
    model["head"].weight = nn.Parameter(model["table"].weight + 1)
    with pytest.raises(FormatError, match="'head' should have the weights of 'table'"):
        apply_plans(model, _plans())


def test_only_zero_buffers_are_dropped() -> None:
    model = nn.Module()
    model.register_buffer("zero", torch.zeros(2))
    model.register_buffer("one", torch.ones(2))
    assert drop_zero_buffers(model, ["zero", "one"]) == ("zero",)
    assert set(model.state_dict()) == {"one"}
    assert torch.equal(model.get_buffer("zero"), torch.zeros(2))
