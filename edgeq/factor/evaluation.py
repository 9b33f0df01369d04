"""Decides how factorised layers are computed, and makes the products of constants that this takes.

The decision depends on the checkpoint alone, so every stage after it (reference, export, parity) computes the
same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from edgeq.errors import UsageError
from edgeq.factor.cost import Cost, Evaluation, cheapest, costs
from edgeq.factor.embedding import KroneckerEmbedding, KroneckerHead
from edgeq.factor.insert import LINEARS, factor_specs
from edgeq.factor.specs import Evaluate, Fold, LayerSpec, TuckerSpec
from edgeq.factor.tucker import TuckerLinear
from edgeq.models import GenerativeAdapter, ModelAdapter, Seq2SeqAdapter
from edgeq.quant.modules import PackedModule

TOKENS_OF_A_TEXT, TOKENS_OF_A_STEP = 128, 1
"""What costs are stated for: a text that is read at once, and one more token."""

_READ_TOGETHER = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")


@dataclasses.dataclass(frozen=True)
class Choice:
    """How one layer is computed.

    Attributes:
        name: Module name.
        evaluation: The way that was chosen.
        options: Costs of all ways.
        forced: Whether the recipe or the packed factors left no choice.
    """

    name: str
    evaluation: Evaluation
    options: dict[Evaluation, Cost]
    forced: bool


def describe_choices(choices: Sequence[Choice]) -> list[str]:
    """Returns one line for all layers that cost the same and are computed in one way.

    Costs are in millions of multiply-adds, for a text of ``TOKENS_OF_A_TEXT`` tokens and for one token.
    """
    groups: dict[str, list[str]] = {}
    for choice in choices:
        ways = ", ".join(
            f"{way} {cost.total(TOKENS_OF_A_TEXT) / 1e6:.1f}M / {cost.total(TOKENS_OF_A_STEP) / 1e6:.2f}M"
            for way, cost in choice.options.items()
        )
        forced = " (no choice)" if choice.forced else ""
        groups.setdefault(f"computed {choice.evaluation}{forced}; {ways}", []).append(choice.name)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {what}" for what, names in groups.items()
    ]


def call_tokens(adapter: ModelAdapter) -> int:
    """Returns the tokens of the calls that matter: a whole text, or for models that make text one token."""
    return TOKENS_OF_A_STEP if isinstance(adapter, GenerativeAdapter | Seq2SeqAdapter) else TOKENS_OF_A_TEXT


def choose(model: nn.Module, *, evaluate: Evaluate, tokens: int) -> list[Choice]:
    """Decides for every factorised linear layer how it is computed.

    Args:
        model: A model with factorised layers.
        evaluate: What the recipe says.
        tokens: What the cost model counts with: tokens of a call.

    Returns:
        One choice a layer, in the model's order.

    Raises:
        UsageError: If the recipe asks for dense matrices of packed factors.
    """
    specs = {name: spec for name, spec in factor_specs(model).items() if costs(spec)}
    choices = []
    for name, spec in specs.items():
        options = costs(spec, readers=readers_of(name, specs))
        packed = _is_packed(model.get_submodule(name))
        if evaluate == "dense" and packed:
            raise UsageError(f"{name} has packed factors, whose dense matrix would be float; use evaluate = 'auto'")
        way: Evaluation = cheapest(options, tokens) if evaluate == "auto" else evaluate
        if packed or way not in options:
            way = "factored"
        choices.append(Choice(name, way, options, forced=evaluate != "auto" or packed))
    return choices


@torch.no_grad()
def apply_choices(model: nn.Module, choices: list[Choice]) -> None:
    """Replaces layers in place by those that compute the chosen way; products of constants are made once, here.

    The model then has other tensors than its checkpoint: it can be run and exported, but not saved.
    """
    for choice in choices:
        layer = model.get_submodule(choice.name)
        if choice.evaluation == "dense":
            model.set_submodule(choice.name, dense_linear(layer))
        elif choice.evaluation != "factored" and isinstance(layer, TuckerLinear):
            model.set_submodule(choice.name, folded(layer, choice.evaluation))


def folded(layer: TuckerLinear, fold: Fold) -> TuckerLinear:
    """Returns a layer that computes the same with its cores multiplied into another factor."""
    result = TuckerLinear(dataclasses.replace(layer.spec, fold=fold), layer.bank)
    if result.folded is None or layer.spec.fold != "none":
        raise UsageError(f"a layer folded {layer.spec.fold!r} cannot be folded {fold!r}")
    with torch.no_grad():
        result.folded.weight.copy_(layer.folded_weight(fold))  # type: ignore[operator]  # a tensor
        if layer.bias is not None:
            result.set_bias(layer.bias)
    result.train(layer.training)
    return result


def dense_linear(layer: nn.Module) -> nn.Linear:
    """Returns the dense layer that a factorised one stands for."""
    if not isinstance(layer, LINEARS):
        raise UsageError(f"a {type(layer).__name__} has no dense matrix")
    dense = nn.Linear(layer.in_features, layer.out_features)
    with torch.no_grad():
        bias = layer(torch.zeros(1, layer.in_features))
        dense.weight.copy_((layer(torch.eye(layer.in_features)) - bias).T)
        dense.bias.copy_(bias[0])
    dense.train(layer.training)
    return dense


def _is_packed(module: nn.Module) -> bool:
    parts = list(module.modules())
    if isinstance(module, TuckerLinear):
        parts += list(module.bank.modules())
    if isinstance(module, KroneckerEmbedding | KroneckerHead):
        return False
    return any(isinstance(part, PackedModule) for part in parts)


def _group(name: str) -> str:
    """The attention whose queries, keys and values read one input; empty for other layers."""
    owner, _, last = name.rpartition(".")
    return owner if last in _READ_TOGETHER else ""


def readers_of(name: str, specs: dict[str, LayerSpec]) -> int:
    """Returns how many of the layers read the input of ``name`` with its first factor: it is computed once."""
    group = _group(name)
    if not group or not isinstance(specs[name], TuckerSpec):
        return 1
    return sum(_group(other) == group and isinstance(spec, TuckerSpec) for other, spec in specs.items())
