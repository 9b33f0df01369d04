"""Turns a recipe into a plan for the layers of one model, and carries it out."""

from __future__ import annotations

from torch import nn

from edgeq.formats import Activation
from edgeq.models import ModelAdapter
from edgeq.progress import Progress, silent
from edgeq.quant.apply import apply_plans
from edgeq.quant.grids import GridName, grid_for
from edgeq.quant.plan import CompressionResult, LayerKind, LayerPlan
from edgeq.recipes.schema import EmbeddingSection, Recipe, WeightSection

_FLOAT_EMBEDDINGS = "the recipe keeps embeddings in float (embeddings.bits = 0)"


def plan_layers(recipe: Recipe, adapter: ModelAdapter) -> list[LayerPlan]:
    """Resolves a recipe and its overrides for every layer of a model.

    Returns:
        One plan a layer: embeddings first, then linear layers in the order in which they run.
    """
    plans = [_plan(recipe, name, "embedding") for name in adapter.embedding_names]
    return plans + [_plan(recipe, name, "linear") for name in adapter.linear_names]


def apply_recipe(
    model: nn.Module, recipe: Recipe, adapter: ModelAdapter, *, progress: Progress = silent
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
    records = apply_plans(model, plan_layers(recipe, adapter), progress=progress)
    return CompressionResult(recipe.name, recipe.sha256, records)


def _plan(recipe: Recipe, name: str, kind: LayerKind) -> LayerPlan:
    section: WeightSection | EmbeddingSection = recipe.weights if kind == "linear" else recipe.embeddings
    bits: int = section.bits
    grid_name: GridName | None = section.grid
    reason = _FLOAT_EMBEDDINGS if bits == 0 else None
    for override in recipe.override:
        if override.matches(name):
            bits, grid_name = override.bits or 0, override.grid
            reason = override.reason if override.keep_float else None
    activation: Activation = recipe.activations.mode if kind == "linear" and bits else "none"
    return LayerPlan(
        name=name,
        kind=kind,
        grid=grid_for(bits, grid_name) if bits else None,
        per_row=section.scale == "row",
        search=section.search,
        activation=activation,
        keep_float_reason=reason,
    )
