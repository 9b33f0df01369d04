"""Replaces trained layers of a model by their nearest factors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.factor.insert import factor_specs, insert_factor_modules
from edgeq.factor.kinds import FactorModule, FactorSettings, FactorSpec, SharedFactors
from edgeq.finite import is_finite
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.float_layers import weight_rows


@dataclasses.dataclass(frozen=True)
class FactorRecord:
    """What became of one dense layer.

    Attributes:
        name: Module name.
        dense_parameters: Weights before, the bias left out.
        parameters: Stored numbers after it, the bias left out; those of a bank are in a record of the bank's own.
        relative_error: Squared error of the factors over the sum of squared weights.
    """

    name: str
    dense_parameters: int
    parameters: int
    relative_error: float


@torch.no_grad()
def factorise(
    model: Any, adapter: ModelAdapter, settings: FactorSettings, *, progress: Progress = silent
) -> list[FactorRecord]:
    """Factorises a float model in place, so that the factors are nearest to the trained weights.

    Args:
        model: A float32 model.
        adapter: Its adapter.
        settings: What to do.
        progress: Told before each layer.

    Returns:
        One record for each layer that was replaced.

    Raises:
        UsageError: If the settings do not fit the model, or the model is factorised already.
        UnsupportedError: If the model's table cannot be factorised.
        FormatError: If a weight is not finite.
    """
    if factor_specs(model):
        raise UsageError("the model is factorised already; give the dense model")
    specs = settings.plan(model, adapter)
    if not specs:
        reason = f", which {adapter.untrained_because}" if adapter.untrained_because else ""
        raise UnsupportedError(f"the recipe factorises no layer of {adapter.architecture}{reason}")
    weights, biases = _trained(model, specs)
    insert_factor_modules(model, specs)
    for spec in specs.values():
        spec.configure(model.config)
    for name, module in [(name, model.get_submodule(name)) for name, spec in specs.items() if spec.is_shared]:
        progress(f"decomposing all layers on {name} together", 0, 1)
        cast(SharedFactors, module).fill_layers(model, weights)
    records = []
    for index, (name, weight) in enumerate(weights.items()):
        progress("factorising layers", index, len(weights))
        module = cast(FactorModule, model.get_submodule(name))
        nearest = module.fill(weight)
        if (bias := biases[name]) is not None:
            module.set_bias(bias)
        records.append(_record(name, specs[name], weight, nearest))
    progress("factorising layers", len(weights), len(weights))
    return records


def _trained(
    model: nn.Module, specs: Mapping[str, FactorSpec]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
    """Weights (``[N, K]``) and biases of the layers that are to be replaced."""
    weights: dict[str, torch.Tensor] = {}
    biases: dict[str, torch.Tensor | None] = {}
    for name, spec in specs.items():
        if spec.shape is None:
            continue
        module = model.get_submodule(name)
        weights[name] = weight_rows(module).detach().float().contiguous()
        bias = getattr(module, "bias", None)
        biases[name] = None if bias is None else bias.detach().float().clone()
        if not is_finite(weights[name]):
            raise FormatError(f"the weights of layer {name!r} hold NaN or infinity: the checkpoint is damaged")
    return weights, biases


def _record(name: str, spec: FactorSpec, weight: torch.Tensor, nearest: torch.Tensor) -> FactorRecord:
    energy = float(weight.double().square().sum())
    error = float((nearest - weight).double().square().sum())
    return FactorRecord(name, weight.numel(), spec.parameters_without_bias, error / energy if energy > 0 else 0.0)
