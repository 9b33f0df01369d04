"""Recipes: TOML files that say how a model is compressed."""

from edgeq.recipes.apply import apply_recipe, plan_layers
from edgeq.recipes.calibration import CalibratedModel, calibrate_model, calibration_texts, default_texts
from edgeq.recipes.load import RecipeSummary, list_recipes, load_recipe
from edgeq.recipes.request import TrainingRequest, check_calibration_data, check_request, request_of
from edgeq.recipes.schema import Recipe
from edgeq.recipes.student import MaskedModel, Source, TrainedStudent, train_student

__all__ = [
    "CalibratedModel",
    "MaskedModel",
    "Recipe",
    "RecipeSummary",
    "Source",
    "TrainedStudent",
    "TrainingRequest",
    "apply_recipe",
    "calibrate_model",
    "calibration_texts",
    "check_calibration_data",
    "check_request",
    "default_texts",
    "list_recipes",
    "load_recipe",
    "plan_layers",
    "request_of",
    "train_student",
]
