"""Puts empty factorised layers into a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgeq.errors import FormatError
from edgeq.factor.blocks import BlockLinear
from edgeq.factor.embedding import KroneckerEmbedding, KroneckerHead
from edgeq.factor.kronecker import KroneckerLinear
from edgeq.factor.low_rank import LowRankLinear
from edgeq.factor.specs import (
    BankSpec,
    BlockSpec,
    EmbeddingSpec,
    HeadSpec,
    KroneckerSpec,
    LayerSpec,
    LowRankSpec,
    TuckerSpec,
)
from edgeq.factor.tucker import TuckerBank, TuckerLinear
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows

FactorModule = KroneckerLinear | LowRankLinear | BlockLinear | TuckerLinear | KroneckerEmbedding | KroneckerHead
LINEARS = (KroneckerLinear, LowRankLinear, BlockLinear, TuckerLinear)
MODULES = (*LINEARS, TuckerBank, KroneckerEmbedding, KroneckerHead)


def insert_factor_modules(model: nn.Module, specs: Mapping[str, LayerSpec]) -> None:
    """Replaces dense layers by factorised ones of the same outer shape, their numbers not set.

    Args:
        model: Changed in place.
        specs: What each layer becomes; names must be those of ``model``, a bank before its layers.

    Raises:
        FormatError: If a layer is not there, or has another shape.
    """
    for name, spec in specs.items():
        if isinstance(spec, BankSpec):
            owner, _, attribute = name.rpartition(".")
            with torch.device(next(model.parameters()).device):
                bank = TuckerBank(spec)
            model.get_submodule(owner).add_module(attribute, bank)
            bank.serve(model.get_submodule(owner))
            continue
        dense = _dense_layer(model, name, spec)
        with torch.device(dense.get_parameter("weight").device):
            module = _build(model, spec)
        module.train(dense.training)
        model.set_submodule(name, module)


def factor_specs(model: nn.Module) -> dict[str, LayerSpec]:
    """Describes the factorised layers of a model, banks first; empty for a dense model."""
    specs: dict[str, LayerSpec] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, MODULES) and not name.startswith(inside or ("\0",)):
            specs[name] = module.spec
            inside = (*inside, f"{name}.")
    return dict(sorted(specs.items(), key=lambda entry: not isinstance(entry[1], BankSpec)))


def _build(model: nn.Module, spec: LayerSpec) -> nn.Module:
    if isinstance(spec, KroneckerSpec):
        return KroneckerLinear(spec)
    if isinstance(spec, LowRankSpec):
        return LowRankLinear(spec)
    if isinstance(spec, BlockSpec):
        return BlockLinear(spec)
    if isinstance(spec, EmbeddingSpec):
        return KroneckerEmbedding(spec)
    if isinstance(spec, HeadSpec):
        table = dict(model.named_modules()).get(spec.table)
        if not isinstance(table, KroneckerEmbedding):
            raise FormatError(f"config.json: {spec.table!r} should be a factorised table")
        return KroneckerHead(spec, table)
    if isinstance(spec, TuckerSpec):
        bank = dict(model.named_modules()).get(spec.bank)
        if not isinstance(bank, TuckerBank) or not _fits(spec, bank.spec):
            raise FormatError(f"config.json: {spec.bank!r} should be a bank of width {spec.width} and rank {spec.rank}")
        return TuckerLinear(spec, bank)
    raise FormatError(f"config.json: a {type(spec).__name__} is no layer")


def _fits(layer: TuckerSpec, bank: BankSpec) -> bool:
    mixes = layer.fold == "none" and layer.mixed
    return (layer.width, layer.rank) == (bank.width, bank.rank) and (not mixes or layer.mixed == bank.cores)


def _dense_layer(model: nn.Module, name: str, spec: LayerSpec) -> nn.Module:
    try:
        dense = model.get_submodule(name)
    except AttributeError:
        raise FormatError(f"config.json: {type(model).__name__} has no layer {name!r} to be factorised") from None
    kind = "embedding" if isinstance(spec, EmbeddingSpec) else "linear"
    shape = None if isinstance(spec, HeadSpec | BankSpec) else (spec.rows, spec.columns)
    known = isinstance(dense, FLOAT_CLASSES[kind])  # type: ignore[index]
    if not known or (shape is not None and tuple(weight_rows(dense).shape) != shape):
        raise FormatError(f"config.json: layer {name!r} should be a factorised {kind} of {shape}, found {dense}")
    return dense
