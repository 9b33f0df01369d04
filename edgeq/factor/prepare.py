"""Gets factorised layers ready to be packed: what is stored must be what is multiplied, in the order it is read.

A packed matrix is read row by row. A bank that serves both orientations of slices would have to be packed twice, with
scales that belong to one of them, so its factors are untied. And a core that is mixed, or a factor that is multiplied
into another one when a model is loaded, is computed in float; where that costs more than it saves, the product itself
is stored, trained and packed.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from edgeq.factor.cost import costs
from edgeq.factor.evaluation import folded, readers_of
from edgeq.factor.insert import factor_specs
from edgeq.factor.specs import OUTER_FACTORS, Fold, TuckerSpec
from edgeq.factor.tucker import TransposedLinear, TuckerBank, TuckerLinear


@torch.no_grad()
def prepare_for_packing(model: nn.Module, *, fold: bool, tokens: int) -> None:
    """Unties the banks of a model and, if asked to, stores folded layers.

    Args:
        model: A float model, factorised or not; changed in place, its function is not.
        fold: Multiply cores into the outer factor with which the layer then costs less.
        tokens: What the cost model counts with.
    """
    if fold:
        _fold(model, tokens)
    for module in list(model.modules()):
        if isinstance(module, TuckerBank):
            _untie(module, _used_factors(model, module))
    _drop_unused_cores(model)


def _fold(model: nn.Module, tokens: int) -> None:
    specs = factor_specs(model)
    for name, spec in specs.items():
        layer = model.get_submodule(name)
        if not isinstance(layer, TuckerLinear) or not isinstance(spec, TuckerSpec):
            continue
        options = costs(spec, readers=readers_of(name, specs))
        way: Fold = "up" if options["up"].total(tokens) <= options["down"].total(tokens) else "down"
        model.set_submodule(name, folded(layer, way))


def _used_factors(model: nn.Module, bank: TuckerBank) -> tuple[str, ...]:
    used = set()
    for module in model.modules():
        if isinstance(module, TuckerLinear) and module.bank is bank:
            fold, transposed = module.spec.fold, module.spec.transposed
            if fold != "down":
                used.add("right_down" if transposed else "left_down")
            if fold != "up":
                used.add("left_up" if transposed else "right_up")
    return tuple(factor for factor in OUTER_FACTORS if factor in used)


def _untie(bank: TuckerBank, used: tuple[str, ...]) -> None:
    """Gives every factor that is used weights of its own, and drops what nothing reads."""
    layers = {factor: bank.get_submodule(factor) for factor in used}
    for factor in OUTER_FACTORS:
        layer = layers.get(factor)
        if isinstance(layer, TransposedLinear):
            weight = layer.weight
            own = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
            own.weight.copy_(weight)
            layer = own
        layers[factor] = layer  # type: ignore[assignment]  # None for what is dropped
    for factor, layer in layers.items():
        setattr(bank, factor, layer)
    bank.spec = dataclasses.replace(bank.spec, factors=used)


def _drop_unused_cores(model: nn.Module) -> None:
    """Removes the cores of banks whose layers are all folded."""
    mixing = {id(m.bank) for m in model.modules() if isinstance(m, TuckerLinear) and m.mix is not None}
    for module in model.modules():
        if isinstance(module, TuckerBank) and module.cores is not None and id(module) not in mixing:
            module.cores = None
            module.spec = dataclasses.replace(module.spec, cores=0)
