"""Ways to factorise a layer, one method a file; a new one is a file here."""

from __future__ import annotations

from edgeq.discovery import classes_of
from edgeq.factor.kinds.base import FactorLinear, FactorModule, FactorSettings, FactorSpec, SharedFactors

KINDS: dict[str, type[FactorSpec]] = classes_of(__name__, FactorSpec, having="kind")  # type: ignore[type-abstract]
"""Kinds of layers by their names in ``config.json``."""
METHODS: dict[str, type[FactorSettings]] = classes_of(__name__, FactorSettings, having="method")  # type: ignore[type-abstract]
"""Methods by their names in recipes."""

__all__ = ["KINDS", "METHODS", "FactorLinear", "FactorModule", "FactorSettings", "FactorSpec", "SharedFactors"]
