"""Turns a recipe into a plan for the layers of one model, and carries it out."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgeq.errors import UnsupportedError, UsageError
from edgeq.factor.apply import factorise
from edgeq.factor.evaluation import call_tokens
from edgeq.factor.names import LayerNames, layer_names
from edgeq.factor.prepare import prepare_for_packing
from edgeq.formats.low_bit import Activation
from edgeq.formats.quantization_config import LayerKind
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.apply import apply_plans
from edgeq.quant.buffers import drop_zero_buffers
from edgeq.quant.calibrate import QUANTIZER
from edgeq.quant.grids import GridName, grid_for
from edgeq.quant.int8_attention import use_int8_attention
from edgeq.quant.plan import CompressionResult, LayerPlan, LayerRecord
from edgeq.quant.quantizers import METHOD_OF_BITS
from edgeq.recipes.schema import Recipe
from edgeq.recipes.storage_sections import EmbeddingSection, QuantizerName, WeightSection

Section = WeightSection | EmbeddingSection

_KEPT_FLOAT = {
    "embedding": "the recipe keeps embeddings in float (embeddings.bits = 0)",
    "linear": "the recipe keeps linear layers in float (weights.bits = 0)",
}


def plan_layers(recipe: Recipe, adapter: ModelAdapter, names: LayerNames | None = None) -> list[LayerPlan]:
    """Resolves a recipe and its overrides for every layer of a model.

    Args:
        recipe: What to do.
        adapter: The adapter of the model.
        names: The layers of a factorised model; those of the adapter if not given.

    Returns:
        One plan a layer: embeddings first, then linear layers in the order in which they run.

    Raises:
        UsageError: If an override stores a layer in another way than the table it shares its weights with.
        UnsupportedError: If the recipe wants int8 attention, and the model's cannot be.
    """
    int8_attention_of(recipe, adapter)  # refused before anything is changed
    if names is None:
        lists = adapter.embedding_names, adapter.linear_names, adapter.tied_names, adapter.float_names
        names = LayerNames(*lists, matrices=[])
    layers: list[tuple[str, LayerKind]] = [(name, "embedding") for name in (*names.embeddings, *names.matrices)]
    layers += [(name, "linear") for name in names.linears]
    plans: dict[str, LayerPlan] = {}
    for name, kind in layers:
        section: Section = recipe.embeddings if name in names.embeddings else recipe.weights
        if name in names.kept_float:
            plans[name] = LayerPlan(name, kind, None, keep_float_reason=names.kept_float[name])
        elif name in names.tied:
            plans[name] = _tied_plan(recipe, section, name, kind, plans[names.tied[name]])
        else:
            plans[name] = _plan(recipe, section, name, kind)
    return list(plans.values())


def int8_attention_of(recipe: Recipe, adapter: ModelAdapter) -> list[str]:
    """Returns the modules whose attention a recipe makes int8.

    Raises:
        UnsupportedError: If the model's attention cannot be.
    """
    if recipe.activations.attention == "float":
        return []
    if not adapter.int8_attention_names:
        raise UnsupportedError(
            f'recipe {recipe.name!r}: attention = "int8" is for BERT, RoBERTa, XLM-RoBERTa, CamemBERT and ELECTRA with '
            f'absolute positions, found {adapter.architecture}; set attention = "float" in [activations]'
        )
    return adapter.int8_attention_names


def factorise_model(model: Any, recipe: Recipe, adapter: ModelAdapter, *, progress: Progress = silent) -> LayerNames:
    """Does in place what the table ``[factor]`` of a recipe says, if it has one.

    Args:
        model: A float32 ``transformers`` model.
        recipe: What to do.
        adapter: The adapter of the model.
        progress: Told before each layer.

    Returns:
        The layers that are left to be quantized, or kept.

    Raises:
        UsageError: If the factors do not fit the model; nothing was changed then.
    """
    if recipe.factor is not None:
        factorise(model, adapter, recipe.factor.settings(), progress=progress)
        if recipe.weights.bits:
            prepare_for_packing(model, fold=recipe.factor.fold, tokens=call_tokens(adapter))
    return layer_names(model, adapter)


def apply_recipe(
    model: Any, recipe: Recipe, adapter: ModelAdapter, *, progress: Progress = silent
) -> CompressionResult:
    """Compresses a float model in place.

    Args:
        model: A float32 ``transformers`` model.
        recipe: What to do.
        adapter: The adapter of the model.
        progress: Told before each layer.

    Raises:
        UnsupportedError: If the model has a layer that its adapter does not know.
        FormatError: If a weight is not finite.
    """
    names = factorise_model(model, recipe, adapter, progress=progress)
    records = apply_plans(model, plan_layers(recipe, adapter, names), progress=progress)
    return compression_result(model, recipe, adapter, records)


def compression_result(
    model: Any, recipe: Recipe, adapter: ModelAdapter, records: list[LayerRecord]
) -> CompressionResult:
    """Prepares a model whose layers are packed for being saved, and returns what was done to it."""
    use_int8_attention(model, int8_attention_of(recipe, adapter))
    if any(record.tied_to is not None and record.bits < 32 for record in records):
        # transformers would tie "weight" attributes, which packed layers do not have; they are tied already.
        model.config.tie_word_embeddings = False
    zeros = drop_zero_buffers(model, adapter.zero_buffers)
    return CompressionResult(recipe.name, recipe.sha256, records, zeros)


def _tied_plan(recipe: Recipe, section: Section, name: str, kind: LayerKind, table: LayerPlan) -> LayerPlan:
    """A tied layer is stored as its table is; only what happens to its input is its own."""
    own = _plan(recipe, section, name, kind)
    meant = any(override.matches(name) for override in recipe.override)
    if meant and (own.grid, own.method) != (table.grid, table.method):
        raise UsageError(
            f"recipe {recipe.name!r}: an override stores {name!r} in another way than {table.name!r}, but the "
            "two are one tensor; let the pattern match both or none"
        )
    activation: Activation = recipe.activations.mode if kind == "linear" and table.grid else "none"
    return dataclasses.replace(table, name=name, kind=kind, activation=activation, tied_to=table.name)


def _plan(recipe: Recipe, section: Section, name: str, kind: LayerKind) -> LayerPlan:
    bits: int = section.bits
    grid_name: GridName | None = section.grid
    method: QuantizerName | None = section.quantizer
    reason = _KEPT_FLOAT[kind] if bits == 0 else None
    for override in recipe.override:
        if override.matches(name):
            bits, grid_name = override.bits or 0, override.grid
            reason = override.reason if override.keep_float else None
            method = override.quantizer or (section.quantizer if bits == section.bits else None)
    activation: Activation = recipe.activations.mode if kind == "linear" and bits else "none"
    return LayerPlan(
        name=name,
        kind=kind,
        grid=grid_for(bits, grid_name) if bits else None,
        per_row=section.scale == "row",
        search=section.search,
        activation=activation,
        keep_float_reason=reason,
        **(_learned(recipe, section, method, bits) if bits else {}),
    )


def _learned(recipe: Recipe, section: Section, method: QuantizerName | None, bits: int) -> dict[str, Any]:
    """Returns what training or calibration adds to a layer's plan."""
    if not recipe.trains:
        return {"method": QUANTIZER} if recipe.calibrates else {}
    chosen = method or METHOD_OF_BITS[bits]
    return {
        "method": chosen,
        "gradient": section.gradient if chosen == section.quantizer else "method",
        "start": section.start if chosen == section.quantizer else "method",
        "static_method": recipe.activations.quantizer or "lsq",
    }
