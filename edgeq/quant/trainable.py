"""Makes a model trainable with quantized weights, changes its stage, and freezes it for good."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeq.errors import UsageError
from edgeq.finite import is_finite
from edgeq.progress import Progress, silent
from edgeq.quant.apply import check_coverage, check_ties, finite_weight_rows, float_record, packed_record, tie
from edgeq.quant.float_layers import weight_rows
from edgeq.quant.int8_attention import check_all_on, switch
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.output_bias import keep_biases_in_layers
from edgeq.quant.placing import put_layer
from edgeq.quant.plan import LayerPlan, LayerRecord
from edgeq.quant.trainable_layers import (
    TiedTrainable,
    TiedTrainableEmbedding,
    TiedTrainableLinear,
    TrainableEmbedding,
    TrainableLayer,
    TrainableLinear,
    check_activation,
)


def make_trainable(model: Any, plans: list[LayerPlan], *, progress: Progress = silent) -> None:
    """Replaces float layers in place by layers that are rounded in every forward pass.

    Layers planned without a grid stay as they are, and are trained in float. The weight of a ``Linear`` or
    ``Embedding`` remains the same parameter object; that of a ``Conv1D`` becomes a new one, the other way round.
    All planned bits and activations are switched on: :func:`set_stage` begins a schedule elsewhere.

    Args:
        model: A float32 model; its layers named in ``plans`` are replaced.
        plans: One plan for every linear and embedding layer, each with a ``method`` or without a grid.
        progress: Told before each layer, and at the end.

    Raises:
        UnsupportedError: If the plans miss a layer of the model or name one that is not there.
        UsageError: If a plan lacks a method, or its quantizer has no such bits, gradient or grid.
        FormatError: If a weight is not finite, or tied layers hold different weights.
    """
    check_coverage(model, plans)
    check_ties(model, plans)
    tied = False
    for index, plan in enumerate(plans):
        progress("preparing layers", index, len(plans))
        module = model.get_submodule(plan.name)
        weight = finite_weight_rows(module, plan)
        if plan.grid is None:
            continue
        if plan.tied_to is None:
            layer: nn.Module = _trainable(module, weight, plan)
        else:
            layer = _tied_trainable(model, plan)
            tied = True
        layer.train(module.training)
        put_layer(model, plan.name, layer)
    progress("preparing layers", len(plans), len(plans))
    model.trainable_plans = tuple(plans)
    if tied and hasattr(model, "config"):
        # transformers would assign "weight" attributes to each other, which are one parameter already.
        model.config.tie_word_embeddings = False


def set_stage(
    model: nn.Module,
    *,
    bits: int | None = None,
    method: str | None = None,
    activations: bool | None = None,
) -> None:
    """Moves all trainable layers to a stage of a schedule.

    Optimizers must be made anew afterwards: where the planned method does not define the bits, another quantizer
    with other parameters takes its place (:data:`edgeq.quant.quantizers.METHOD_OF_BITS`).

    Args:
        model: A model that :func:`make_trainable` prepared.
        bits: Bits of the weights, never below what a layer is planned to end with; None leaves them.
        method: A method for this stage instead of the planned one, for layers that have not arrived at the bits that
            they are planned to end with.
        activations: Whether planned activation quantizers are on, those of int8 attention among them; None leaves them.

    Raises:
        UsageError: If the model is not trainable, or the method has no such bits.
    """
    layers = trainable_layers(model)
    for layer in layers.values():
        if bits is not None and isinstance(layer, TrainableLayer):
            layer.change_bits(bits, method=method)
        if activations is not None and isinstance(layer, TrainableLinear | TiedTrainableLinear):
            layer.activation_on = activations and layer.activation is not None
    if activations is not None:
        switch(model, on=activations)


def trainable_layers(model: nn.Module) -> dict[str, TrainableLayer | TiedTrainable]:
    """Returns the layers that are quantized in training, by name.

    Raises:
        UsageError: If there are none.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, TrainableLayer | TiedTrainable)}
    if not layers:
        raise UsageError(f"{type(model).__name__} has no layers in quantized training; call make_trainable first")
    return layers


def quantizer_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns what quantizers learn (clip factors, steps): they have a learning rate of their own and no decay."""
    owners: list[nn.Module] = []
    for layer in trainable_layers(model).values():
        owners += [part for part in (getattr(layer, "quantizer", None), getattr(layer, "activation", None)) if part]
    return [parameter for owner in owners for parameter in owner.parameters()]


@torch.no_grad()
def freeze(model: nn.Module, *, progress: Progress = silent) -> list[LayerRecord]:
    """Replaces trainable layers in place by packed ones, whose decoded weights equal the trained ones bit for bit.

    Args:
        model: A model that :func:`make_trainable` prepared.
        progress: Told before each layer, and at the end.

    Returns:
        One record for each plan that the model was prepared with, in that order.

    Raises:
        UsageError: If the model is not trainable, or a layer has not arrived at its planned bits and activations.
        FormatError: If a weight is not finite.
    """
    trainable_layers(model)
    check_all_on(model)
    plans: tuple[LayerPlan, ...] = model.trainable_plans  # type: ignore[assignment]
    records: dict[str, LayerRecord] = {}
    for index, plan in enumerate(plans):
        progress("packing layers", index, len(plans))
        module = model.get_submodule(plan.name)
        if plan.tied_to is not None:
            if isinstance(module, TiedTrainableLinear):
                check_activation(module)
            records[plan.name] = tie(model, plan, records[plan.tied_to])
        elif isinstance(module, TrainableLinear | TrainableEmbedding):
            records[plan.name] = _freeze_layer(model, plan, module)
        else:
            records[plan.name] = float_record(plan, finite_weight_rows(module, plan))
    keep_biases_in_layers(model)
    progress("packing layers", len(plans), len(plans))
    del model.trainable_plans
    return list(records.values())


def _trainable(module: nn.Module, weight: torch.Tensor, plan: LayerPlan) -> nn.Module:
    own = module.get_parameter("weight")
    # A Linear's or Embedding's parameter goes on living; a Conv1D has its weights the other way round.
    parameter = own if weight_rows(module) is own else nn.Parameter(weight.clone())
    if plan.kind == "embedding":
        padding = module.padding_idx
        return TrainableEmbedding(plan, parameter, padding if isinstance(padding, int) else None)
    bias = module.bias
    return TrainableLinear(plan, parameter, bias if isinstance(bias, nn.Parameter) else None)


def _tied_trainable(model: nn.Module, plan: LayerPlan) -> nn.Module:
    table = model.get_submodule(str(plan.tied_to))
    if not isinstance(table, TrainableEmbedding):
        raise UsageError(f"layer {plan.name!r} shares the weights of {plan.tied_to!r}, which is not in training")
    if plan.kind == "embedding":
        return TiedTrainableEmbedding(plan, table)
    bias = model.get_submodule(plan.name).bias
    return TiedTrainableLinear(plan, table, bias if isinstance(bias, nn.Parameter) else None)


def _freeze_layer(model: nn.Module, plan: LayerPlan, layer: TrainableLinear | TrainableEmbedding) -> LayerRecord:
    finite = is_finite(layer.weight)
    if not finite:
        raise UsageError(
            f"the latent weights of layer {plan.name!r} hold NaN or infinity: training diverged; "
            "start from the last good checkpoint with a lower learning rate"
        )
    packed: LowBitLinear | LowBitEmbedding = layer.frozen()
    packed.train(layer.training)
    weight = layer.weight.float()
    energy = float(weight.double().square().sum())
    error = float((packed.dequantized() - weight).double().square().sum())
    put_layer(model, plan.name, packed)
    return packed_record(plan, packed, error / energy if energy > 0 else 0.0)
