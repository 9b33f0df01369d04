"""Recipes: TOML files that say how a model is compressed."""

from edgeq.recipes.apply import apply_recipe, plan_layers
from edgeq.recipes.load import RecipeSummary, list_recipes, load_recipe
from edgeq.recipes.schema import Recipe

__all__ = ["Recipe", "RecipeSummary", "apply_recipe", "list_recipes", "load_recipe", "plan_layers"]
