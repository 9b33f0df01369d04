"""Replaces trained layers of a model by their nearest factors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgeq.errors import FormatError, UsageError
from edgeq.factor.blocks import BlockLinear
from edgeq.factor.decompose import nearest_kronecker, shared_outer_factors, truncated_svd, tucker
from edgeq.factor.embedding import KroneckerEmbedding
from edgeq.factor.insert import LINEARS, factor_specs, insert_factor_modules
from edgeq.factor.kronecker import KroneckerLinear
from edgeq.factor.low_rank import LowRankLinear
from edgeq.factor.plan import plan_factors
from edgeq.factor.settings import FactorSettings
from edgeq.factor.specs import BankSpec, HeadSpec, LayerSpec, TuckerSpec
from edgeq.factor.tucker import TuckerBank, TuckerLinear, assembled
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
    specs = plan_factors(model, adapter, settings)
    weights, biases = _trained(model, specs)
    insert_factor_modules(model, specs)
    if any(isinstance(spec, HeadSpec) for spec in specs.values()):
        # transformers would tie "weight" attributes, which factorised tables do not have; the head is tied already.
        model.config.tie_word_embeddings = False
    for bank in [name for name, spec in specs.items() if isinstance(spec, BankSpec)]:
        progress("decomposing all layers together", 0, 1)
        _fill_bank(model, bank, weights)
    records = []
    for index, (name, weight) in enumerate(weights.items()):
        progress("factorising layers", index, len(weights))
        module = model.get_submodule(name)
        nearest = _fill(module, weight)
        if (bias := biases[name]) is not None and isinstance(module, LINEARS):
            module.set_bias(bias)
        records.append(_record(name, module, weight, nearest))
    progress("factorising layers", len(weights), len(weights))
    return records


def _trained(
    model: nn.Module, specs: Mapping[str, LayerSpec]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
    """Weights (``[N, K]``) and biases of the layers that are to be replaced."""
    weights: dict[str, torch.Tensor] = {}
    biases: dict[str, torch.Tensor | None] = {}
    for name, spec in specs.items():
        if isinstance(spec, BankSpec | HeadSpec):
            continue
        module = model.get_submodule(name)
        weights[name] = weight_rows(module).detach().float().contiguous()
        bias = getattr(module, "bias", None)
        biases[name] = None if bias is None else bias.detach().float().clone()
        if not bool(torch.isfinite(weights[name]).all()):
            raise FormatError(f"the weights of layer {name!r} hold NaN or infinity: the checkpoint is damaged")
    return weights, biases


def _fill(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """Gives a layer the factors nearest to ``weight`` and returns what they stand for: float32 ``[N, K]``."""
    if isinstance(module, KroneckerLinear):
        left, right = nearest_kronecker(weight, module.spec.left, module.spec.right, terms=module.spec.terms)
        module.set_factors(left, right)
        return kronecker_sum(left, right)
    if isinstance(module, KroneckerEmbedding):
        spec = module.spec
        shapes = (spec.rows, spec.columns // spec.factor), (1, spec.factor)
        left, right = nearest_kronecker(weight, *shapes, terms=spec.terms)
        module.set_factors(left, right.squeeze(1))
        return kronecker_sum(left, right)
    if isinstance(module, LowRankLinear):
        return _fill_low_rank(module, weight)
    if isinstance(module, BlockLinear):
        down, across = module.spec.grid
        blocks = [piece for row in weight.chunk(down) for piece in row.chunk(across, dim=1)]
        nearest = [_fill(part, block.contiguous()) for part, block in zip(module.parts, blocks, strict=True)]
        rows = [torch.cat(nearest[row * across : (row + 1) * across], dim=1) for row in range(down)]
        return torch.cat(rows)
    if isinstance(module, TuckerLinear):  # its numbers came with the bank's
        return _dense_weight(module)
    raise UsageError(f"a {type(module).__name__} has no factors")


def kronecker_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns ``sum_r A_r (x) B_r`` for ``A [r, m1, n1]`` and ``B [r, m2, n2]``."""
    product = torch.einsum("rij,rkl->ikjl", left, right)
    return product.flatten(0, 1).flatten(1)


def _fill_low_rank(module: LowRankLinear, weight: torch.Tensor) -> torch.Tensor:
    up, values, down = truncated_svd(weight, module.spec.rank)
    nearest = (up * values) @ down
    if module.core is None:
        root = values.sqrt()
        up, down = up * root, root[:, None] * down
    else:
        module.core.weight.copy_(torch.diag(values))
    module.up.weight.copy_(up)
    module.down.weight.copy_(down)
    return nearest


def _fill_bank(model: nn.Module, name: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Decomposes the slices of all layers of one bank and stores the factors in the bank and the layers."""
    bank = model.get_submodule(name)
    if not isinstance(bank, TuckerBank):
        raise UsageError(f"{name} is no bank")
    layers = {n: m for n, m in model.named_modules() if isinstance(m, TuckerLinear) and m.bank is bank}
    slices = torch.cat([_slices(weights[n], layer.spec) for n, layer in layers.items()])
    mixture = None
    if bank.spec.cores:
        u, mixture, cores, v = tucker(slices, cores=bank.spec.cores, rank=bank.spec.rank)
        bank.cores.weight.copy_(cores.flatten(0, 1))  # type: ignore[union-attr]  # the bank has cores
    else:
        u, cores, v = shared_outer_factors(slices, bank.spec.rank)
    bank.get_parameter("left_down.weight").copy_(u.T)
    bank.get_parameter("right_up.weight").copy_(v.T)
    first = 0
    for layer in layers.values():
        own = slice(first, first + layer.spec.slices)
        if mixture is not None and layer.mix is not None:
            layer.mix.copy_(mixture[own])
        elif isinstance(layer.core, nn.Linear):
            layer.core.weight.copy_(assembled(cores[own].flatten(1), layer.spec))
        first += layer.spec.slices


def _slices(weight: torch.Tensor, spec: TuckerSpec) -> torch.Tensor:
    """Cuts a matrix ``[N, K]`` into slices ``[slices, D, D]``, with the side that ``U`` acts on first."""
    (down, across), width = spec.grid, spec.width
    blocks = weight.reshape(down, width, across, width).transpose(1, 2).flatten(0, 1)
    return blocks if spec.transposed else blocks.transpose(1, 2)


def _dense_weight(layer: TuckerLinear) -> torch.Tensor:
    """The matrix that a layer stands for: float32 ``[N, K]``."""
    first = layer.bank.first(transposed=layer.spec.transposed).weight
    folded = layer.folded_weight("up")  # [N, inputs d / D]
    blocks = folded.unflatten(1, (layer.spec.grid[1], -1)) @ first
    return blocks.flatten(1)


def _record(name: str, module: nn.Module, weight: torch.Tensor, nearest: torch.Tensor) -> FactorRecord:
    energy = float(weight.double().square().sum())
    error = float((nearest - weight).double().square().sum())
    spec: Any = module.spec
    stored = spec.parameters - (spec.rows if getattr(spec, "bias", False) else 0)
    return FactorRecord(name, weight.numel(), stored, error / energy if energy > 0 else 0.0)
