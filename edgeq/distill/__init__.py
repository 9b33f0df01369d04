"""Distillation: losses that pull a compressed student towards its float teacher."""

from edgeq.distill.features import Batch, FeatureReader, Features, Wanted
from edgeq.distill.objective import Losses, Objective, ObjectiveSettings, check_match

__all__ = [
    "Batch",
    "FeatureReader",
    "Features",
    "Losses",
    "Objective",
    "ObjectiveSettings",
    "Wanted",
    "check_match",
]
