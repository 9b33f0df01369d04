"""Replaces the float layers of a model by low-bit ones, as a list of plans says."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from edgeq.errors import FormatError, UnsupportedError
from edgeq.finite import is_finite
from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.quantization_config import TiedLayer
from edgeq.progress import Progress, silent
from edgeq.quant.float_layers import FLOAT_CLASSES, weight_rows
from edgeq.quant.grids import Grid
from edgeq.quant.modules import LowBitEmbedding, LowBitLinear
from edgeq.quant.output_bias import keep_biases_in_layers
from edgeq.quant.placing import put_layer
from edgeq.quant.plan import LayerPlan, LayerRecord
from edgeq.quant.scale_search import round_weight, search_scale, squared_error, squared_sum
from edgeq.quant.tied import build_tied


def apply_plans(
    model: nn.Module, plans: list[LayerPlan], *, progress: Progress = silent
) -> list[LayerRecord]:
    """Compresses ``model`` in place.

    Args:
        model: A float32 model; its layers named in ``plans`` are replaced.
        plans: One plan for every linear and embedding layer of the model.
        progress: Told before each layer, and at the end.

    Returns:
        One record a plan, in the same order.

    Raises:
        UnsupportedError: If the plans miss a layer of the model or name one that is not there.
        FormatError: If a weight is not finite.
    """
    check_coverage(model, plans)
    check_ties(model, plans)
    records: dict[str, LayerRecord] = {}
    for index, plan in enumerate(plans):
        progress("quantizing layers", index, len(plans))
        if plan.tied_to is None:
            records[plan.name] = _apply_plan(model, plan)
        else:
            records[plan.name] = tie(model, plan, records[plan.tied_to])
    keep_biases_in_layers(model)
    progress("quantizing layers", len(plans), len(plans))
    return list(records.values())


def check_coverage(model: nn.Module, plans: list[LayerPlan]) -> None:
    """Compares plans and layers: a layer that nobody planned for would stay float without a word.

    Raises:
        UnsupportedError: If the plans miss a layer of the model or name one that is not there.
    """
    classes = FLOAT_CLASSES["linear"] + FLOAT_CLASSES["embedding"]
    # One module may stand in several places, as the table of Marian's two sides does.
    present = {name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, classes)}
    planned = {plan.name for plan in plans}
    if missed := sorted(present - planned):
        raise UnsupportedError(
            f"layer {missed[0]!r} of {type(model).__name__} is unknown to the model's adapter"
        )
    if absent := sorted(planned - present):
        raise UnsupportedError(
            f"layer {absent[0]!r}, which the adapter names, is not in {type(model).__name__}"
        )


def check_ties(model: nn.Module, plans: list[LayerPlan]) -> None:
    """Checks that layers that are stored once hold the same weights to begin with.

    Raises:
        FormatError: If they do not.
    """
    for plan in plans:
        if plan.tied_to is None:
            continue
        own, table = (weight_rows(model.get_submodule(name)) for name in (plan.name, plan.tied_to))
        if own.data_ptr() != table.data_ptr() and not torch.equal(own, table):
            raise FormatError(
                f"layer {plan.name!r} should have the weights of {plan.tied_to!r}, found others; "
                "set tie_word_embeddings to false in config.json if that is meant"
            )


def tie(model: nn.Module, plan: LayerPlan, table: LayerRecord) -> LayerRecord:
    """Puts a layer on the packed weights of an embedding table, or leaves both float.

    Args:
        model: Changed in place; the table is packed already, where it is to be.
        plan: Plan of the layer.
        table: Record of the table.
    """
    packed = model.get_submodule(table.name)
    if isinstance(packed, LowBitEmbedding):
        own = model.get_submodule(plan.name)
        bias = getattr(own, "bias", None)
        layer = build_tied(TiedLayer(plan.kind, table.name, plan.activation, bias is not None), packed)
        if isinstance(bias, torch.Tensor) and isinstance(layer, LowBitLinear):
            layer.bias = bias.detach().float().clone()
        layer.train(own.training)
        put_layer(model, plan.name, layer)
        reason, activation = None, plan.activation
    else:
        reason, activation = f"it has the weights of {table.name}, which stays float", "none"
    return dataclasses.replace(
        table,
        name=plan.name,
        kind=plan.kind,
        activation=activation,
        stored_bytes=0,
        kept_float_reason=reason,
        tied_to=table.name,
    )


def _apply_plan(model: nn.Module, plan: LayerPlan) -> LayerRecord:
    module = model.get_submodule(plan.name)
    weight = finite_weight_rows(module, plan)
    if plan.method is not None:
        raise UnsupportedError(f"layer {plan.name!r} is planned for training with quantizer {plan.method!r}")
    if plan.grid is None:
        return float_record(plan, weight)
    packed, error = _pack_layer(module, weight, plan, plan.grid)
    put_layer(model, plan.name, packed)
    return packed_record(plan, packed, error)


def finite_weight_rows(module: nn.Module, plan: LayerPlan) -> torch.Tensor:
    """Returns the weights of a float layer: float32, ``[N, K]``.

    Raises:
        UnsupportedError: If the layer is not of the kind that the plan says.
        FormatError: If a weight is not finite.
    """
    if not isinstance(module, FLOAT_CLASSES[plan.kind]):
        raise UnsupportedError(
            f"layer {plan.name!r} should be a float {plan.kind}, found {type(module).__name__}"
        )
    weight = weight_rows(module).detach().float().contiguous()
    if not is_finite(weight):
        raise FormatError(
            f"the weights of layer {plan.name!r} hold NaN or infinity: the checkpoint is damaged"
        )
    return weight


def float_record(plan: LayerPlan, weight: torch.Tensor) -> LayerRecord:
    """Records a layer of ``weight`` (``[N, K]``) that stays float."""
    rows, columns = weight.shape
    return LayerRecord(
        plan.name,
        plan.kind,
        rows,
        columns,
        32,
        None,
        0,
        "none",
        4 * weight.numel(),
        0.0,
        plan.keep_float_reason,
    )


def packed_record(plan: LayerPlan, packed: LowBitLinear | LowBitEmbedding, error: float) -> LayerRecord:
    """Records a layer that was packed with the relative squared ``error``."""
    spec = packed.spec
    return LayerRecord(
        name=plan.name,
        kind=plan.kind,
        rows=spec.rows,
        columns=spec.columns,
        bits=spec.bits,
        zero_point=spec.zero_point,
        scales=spec.scales,
        activation=plan.activation,
        stored_bytes=spec.packed_bytes + spec.scale_bytes,
        relative_error=error,
    )


def _pack_layer(
    module: nn.Module, weight: torch.Tensor, plan: LayerPlan, grid: Grid
) -> tuple[LowBitLinear | LowBitEmbedding, float]:
    scale = search_scale(weight, grid, per_row=plan.per_row, method=plan.search)
    codes = round_weight(weight, scale, grid)
    spec = PackedMatrix(weight.shape[0], weight.shape[1], grid.stored_bits, grid.zero_point, scale.numel())
    packed: LowBitLinear | LowBitEmbedding
    if plan.kind == "linear":
        bias = module.bias
        packed = LowBitLinear(spec, activation=plan.activation, bias=bias is not None)
        if isinstance(bias, torch.Tensor):
            packed.bias = bias.detach().float().clone()
    else:
        packed = LowBitEmbedding(spec)
    packed.set_codes(codes, scale)
    packed.train(module.training)
    energy = float(squared_sum(weight))
    error = float(squared_error(weight, scale, grid).sum())
    return packed, error / energy if energy > 0 else 0.0
