"""Decides how factorised layers are computed, and makes the products of constants that this takes.

The decision depends on the checkpoint alone, so every stage after it (reference, export, parity) computes the
same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from edgeq.errors import UsageError
from edgeq.factor.cost import Cost, Evaluate, Evaluation, cheapest, readers_of
from edgeq.factor.insert import factor_specs
from edgeq.factor.kinds import FactorLinear
from edgeq.models import GenerativeAdapter, ModelAdapter, Seq2SeqAdapter
from edgeq.quant.modules import PackedModule

TOKENS_OF_A_TEXT, TOKENS_OF_A_STEP = 128, 1
"""What costs are stated for: a text that is read at once, and one more token."""


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

    Costs are in millions of multiply-accumulates, for a text of ``TOKENS_OF_A_TEXT`` tokens and for one token.
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
    """Returns the tokens of the calls that matter: a whole text, or for models that generate text, one token."""
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
    specs = {name: spec for name, spec in factor_specs(model).items() if spec.costs()}
    choices = []
    for name, spec in specs.items():
        options = spec.costs(readers=readers_of(name, specs))
        packed = _is_packed(cast(FactorLinear, model.get_submodule(name)))
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
        layer = cast(FactorLinear, model.get_submodule(choice.name))
        model.set_submodule(choice.name, layer.evaluated(choice.evaluation))


def _is_packed(layer: FactorLinear) -> bool:
    return any(isinstance(part, PackedModule) for part in layer.weight_modules())
