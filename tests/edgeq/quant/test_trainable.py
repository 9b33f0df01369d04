import copy
import dataclasses

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.errors import UnsupportedError, UsageError
from edgeq.quant.grids import grid_for
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.plan import LayerPlan
from edgeq.quant.tied import TiedLowBitEmbedding, TiedLowBitLinear
from edgeq.quant.trainable import freeze, make_trainable, quantizer_parameters, set_stage, trainable_layers

METHODS = [
    ("module-scaling", 2),
    ("module-scaling", 4),
    ("module-scaling", 8),
    ("pact", 4),
    ("lsq", 2),
    ("laq", 2),
    ("bwn", 1),
    ("twn", 2),
    ("uniform", 8),
    ("elastic", 1),
    ("elastic", 2),
    ("statistics", 2),
]


class _Net(nn.Module):
    """A table, its second use, a Conv1D, a Linear, a layer that stays float, and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(19, 6, padding_idx=1)
        self.again = nn.Embedding(19, 6, padding_idx=1)
        self.conv = Conv1D(10, 6)
        self.linear = nn.Linear(10, 6)
        self.kept = nn.Linear(6, 6)
        self.head = nn.Linear(6, 19, bias=False)
        self.again.weight = self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids) + self.again(ids.flip(-1))
        x = x + self.linear(torch.tanh(self.conv(x)))
        return self.head(self.kept(x))


def _net(seed: int = 0) -> _Net:
    torch.manual_seed(seed)
    net = _Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return net


def _plans(method: str = "module-scaling", bits: int = 2, activation: str = "dynamic", per_row: bool = False) -> list:
    common = {"grid": grid_for(bits), "method": method, "per_row": per_row}
    table = LayerPlan("table", "embedding", **{**common, "per_row": True})
    return [
        table,
        LayerPlan("again", "embedding", **{**common, "per_row": True}, tied_to="table"),
        LayerPlan("conv", "linear", **common, activation=activation),
        LayerPlan("linear", "linear", **common, activation=activation),
        LayerPlan("kept", "linear", None, keep_float_reason="because"),
        LayerPlan("head", "linear", **{**common, "per_row": True}, tied_to="table", activation="dynamic"),
    ]


def _ids() -> torch.Tensor:
    return torch.randint(0, 19, (3, 5), generator=torch.Generator().manual_seed(1))


def _train(net: nn.Module, steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        net(_ids()).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("activation", ["none", "dynamic", "static"])
@pytest.mark.parametrize(("method", "bits"), METHODS)
def test_frozen_weights_are_the_trained_ones_bit_for_bit(method: str, bits: int, activation: str) -> None:
    net = _net()
    make_trainable(net, _plans(method, bits, activation))
    _train(net)
    with torch.no_grad():
        trained = {n: layer.decoded_weight() for n, layer in trainable_layers(net).items() if n in ("conv", "table")}
        before = net(_ids())
    records = freeze(net)
    assert [record.name for record in records] == ["table", "again", "conv", "linear", "kept", "head"]
    assert isinstance(net.table, LowBitEmbedding)
    assert isinstance(net.conv, LowBitLinear)
    assert isinstance(net.head, TiedLowBitLinear)
    assert isinstance(net.again, TiedLowBitEmbedding)
    assert type(net.kept) is nn.Linear
    for name, weight in trained.items():
        assert torch.equal(net.get_submodule(name).dequantized(), weight)
    # Products are summed in another order, which may move a value over a rounding edge of the next quantizer.
    assert torch.allclose(net(_ids()), before, atol=1e-4 if activation == "none" else 5e-2)
    assert records[2].relative_error > 0
    assert (records[5].stored_bytes, records[4].kept_float_reason) == (0, "because")


def test_each_layer_computes_what_its_frozen_layer_computes() -> None:
    net = _net()
    make_trainable(net, _plans(activation="static"))
    _train(net)
    x, wide = torch.randn(4, 6), torch.randn(4, 10)
    with torch.no_grad():
        outputs = net.conv(x), net.linear(wide), net.head(x), net.table(_ids()), net.again(_ids())
    freeze(net)
    frozen = net.conv(x), net.linear(wide), net.head(x), net.table(_ids()), net.again(_ids())
    for trained, packed in zip(outputs, frozen, strict=True):
        assert torch.allclose(trained, packed, rtol=1e-5, atol=1e-6)


def test_float_layers_and_biases_stay_the_same_parameters() -> None:
    net = _net()
    linear, kept = net.linear, net.kept
    conv_weight = net.conv.weight.detach().clone()
    make_trainable(net, _plans())
    assert net.linear.weight is linear.weight
    assert net.linear.bias is linear.bias
    assert net.kept is kept
    assert torch.equal(net.conv.weight, conv_weight.T)
    names = set(dict(net.named_parameters()))
    assert {"table.weight", "conv.weight", "conv.bias", "conv.quantizer.gamma"} < names
    assert not any(name.startswith(("head", "again")) for name in names)


def test_every_latent_weight_and_factor_is_trained() -> None:
    net = _net()
    make_trainable(net, _plans(activation="static"))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    _train(net)
    for name, parameter in net.named_parameters():
        if not name.endswith("activation.bound"):  # starts at its first batch, so the old value says nothing
            assert not torch.equal(parameter, before[name]), name
    learned = quantizer_parameters(net)
    assert len(learned) == 5  # three factors and two activation steps
    assert {id(p) for p in learned} < {id(p) for p in net.parameters()}


@pytest.mark.parametrize("repeats", [1, 10])
def test_a_padding_row_is_not_trained_by_lookups(repeats: int) -> None:
    net = _net()
    make_trainable(net, _plans("bwn", 1))
    net.table(torch.tensor([1, 1, 2] * repeats)).sum().backward()
    assert torch.equal(net.table.weight.grad[1], torch.zeros(6))
    assert torch.equal(net.table.weight.grad[2], repeats * torch.ones(6))


@pytest.mark.parametrize("method", ["module-scaling", "laq", "elastic"])
def test_a_few_lookups_and_many_see_the_same_rows(method: str) -> None:
    net = _net()
    make_trainable(net, _plans(method))
    net.eval()
    ids = torch.arange(19).reshape(1, 19)
    whole = net.table(ids)
    assert torch.equal(net.table(ids[:, 3:9]), whole[:, 3:9])
    assert torch.equal(whole[0], net.table.decoded_weight())


def test_a_schedule_lowers_bits_and_switches_activations_on() -> None:
    net = _net()
    make_trainable(net, _plans("bwn", 1))
    for bits, method in ((8, "uniform"), (4, "uniform"), (2, "twn"), (1, "bwn")):
        set_stage(net, bits=bits, activations=False)
        assert (net.conv.quantizer.bits, net.conv.quantizer.method) == (bits, method)
        assert net.table.quantizer.per_row
        assert not net.head.activation_on
        _train(net, 1)
    with pytest.raises(UsageError, match="'conv' should end with dynamic activations"):
        freeze(copy.deepcopy(net))
    set_stage(net, activations=True)
    assert freeze(net)[2].bits == 1


def test_a_schedule_never_goes_below_the_plan() -> None:
    net = _net()
    plans = _plans("module-scaling", 2)
    plans[2] = LayerPlan("conv", "linear", grid_for(8), method="module-scaling")
    make_trainable(net, plans)
    set_stage(net, bits=4)
    assert (net.conv.quantizer.bits, net.linear.quantizer.bits) == (8, 4)
    assert net.linear.quantizer.method == "module-scaling"
    with pytest.raises(UsageError, match="'table' should end with 2 bits, found 4"):
        freeze(net)
    set_stage(net, bits=4, method="uniform")
    assert (net.conv.quantizer.method, net.linear.quantizer.method) == ("module-scaling", "uniform")
    with pytest.raises(UsageError, match="'twn' is for 2 bits, found 4"):
        set_stage(net, bits=4, method="twn")
    set_stage(net, bits=2, method="twn")
    assert net.linear.quantizer.method == "module-scaling"


def test_state_comes_back_with_bits_and_switches() -> None:
    net = _net()
    make_trainable(net, _plans("module-scaling", 2, "static"))
    set_stage(net, bits=4, activations=False)
    _train(net, 2)
    state = copy.deepcopy(net.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = _net(seed=7)
    make_trainable(other, _plans("module-scaling", 2, "static"))
    other.load_state_dict(state)
    assert other.conv.quantizer.bits == 4
    assert other.conv.quantizer.zero_point == 8
    assert not other.conv.activation_on
    with torch.no_grad():
        assert torch.equal(other(_ids()), net(_ids()))


def test_autocast_keeps_the_quantizers_in_float32() -> None:
    net = _net()
    make_trainable(net, _plans())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        decoded = net.conv.decoded_weight()
        rounded = net.conv.activation(torch.randn(3, 6).bfloat16())
    assert decoded.dtype == rounded.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(decoded, net.conv.decoded_weight())


def test_what_cannot_be_trained_is_refused() -> None:
    plans = _plans()
    with pytest.raises(UnsupportedError, match="'head'"):
        make_trainable(_net(), plans[:-1])
    with pytest.raises(UsageError, match="'conv' has no quantizer"):
        make_trainable(_net(), [*plans[:2], LayerPlan("conv", "linear", grid_for(2)), *plans[3:]])
    with pytest.raises(UsageError, match="no place for a static activation scale"):
        make_trainable(_net(), [*plans[:-1], dataclasses.replace(plans[-1], activation="static")])
    with pytest.raises(UsageError, match="call make_trainable first"):
        set_stage(_net(), bits=4)
    net = _net()
    make_trainable(net, _plans(activation="static"))
    with pytest.raises(UsageError, match="saw no data"):
        freeze(net)


def test_weights_that_diverged_are_not_stored() -> None:
    net = _net()
    make_trainable(net, _plans())
    with torch.no_grad():
        net.linear.weight[0, 0] = float("nan")
    with pytest.raises(UsageError, match="'linear' hold NaN"):
        freeze(net)
