"""Puts empty factorised layers into a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgeq.errors import FormatError
from edgeq.factor.kinds import FactorModule, FactorSpec
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows


def insert_factor_modules(model: nn.Module, specs: Mapping[str, FactorSpec]) -> None:
    """Replaces dense layers by factorised ones of the same outer shape, their numbers not set.

    Args:
        model: Changed in place.
        specs: What each layer becomes; names must be those of ``model``, what layers share before the layers.

    Raises:
        FormatError: If a layer is not there, or has another shape.
    """
    for name, spec in specs.items():
        if spec.is_shared:
            owner, _, attribute = name.rpartition(".")
            with torch.device(next(model.parameters()).device):
                model.get_submodule(owner).add_module(attribute, spec.build(model.get_submodule(owner)))
            continue
        dense = _dense_layer(model, name, spec)
        with torch.device(dense.get_parameter("weight").device):
            module = spec.build(model)
        model.set_submodule(name, module.train(dense.training))


def factor_specs(model: nn.Module) -> dict[str, FactorSpec]:
    """Describes the factorised layers of a model, what they share first; empty for a dense model."""
    specs: dict[str, FactorSpec] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, FactorModule) and not name.startswith(inside or ("\0",)):
            specs[name] = module.spec
            inside = (*inside, f"{name}.")
    return dict(sorted(specs.items(), key=lambda entry: not entry[1].is_shared))


def _dense_layer(model: nn.Module, name: str, spec: FactorSpec) -> nn.Module:
    try:
        dense = model.get_submodule(name)
    except AttributeError:
        raise FormatError(f"config.json: {type(model).__name__} has no layer {name!r} to be factorised") from None
    known = isinstance(dense, FLOAT_CLASSES[spec.replaces])
    if not known or (spec.shape is not None and tuple(weight_rows(dense).shape) != spec.shape):
        raise FormatError(
            f"config.json: layer {name!r} should be a factorised {spec.replaces} of {spec.shape}, found {dense}"
        )
    return dense
