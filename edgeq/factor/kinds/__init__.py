"""Ways to factorise a layer, one method a file; a new one is a file here and its lines in the lists below."""

from __future__ import annotations

from edgeq.factor.kinds.base import FactorLinear, FactorModule, FactorSettings, FactorSpec, SharedFactors
from edgeq.factor.kinds.blocks import BlockSpec
from edgeq.factor.kinds.kronecker import KroneckerSettings, KroneckerSpec
from edgeq.factor.kinds.kronecker_table import EmbeddingSpec, HeadSpec
from edgeq.factor.kinds.low_rank import LowRankSettings, LowRankSpec
from edgeq.factor.kinds.tucker import BankSpec, TuckerSettings, TuckerSpec

_SPECS: tuple[type[FactorSpec], ...] = (
    KroneckerSpec,
    LowRankSpec,
    BlockSpec,
    TuckerSpec,
    BankSpec,
    EmbeddingSpec,
    HeadSpec,
)
KINDS: dict[str, type[FactorSpec]] = {spec.kind: spec for spec in _SPECS}
"""Kinds of layers by their names in ``config.json``."""

_SETTINGS: tuple[type[FactorSettings], ...] = (KroneckerSettings, TuckerSettings, LowRankSettings)
METHODS: dict[str, type[FactorSettings]] = {settings.method: settings for settings in _SETTINGS}
"""Methods by their names in recipes."""

__all__ = ["KINDS", "METHODS", "FactorLinear", "FactorModule", "FactorSettings", "FactorSpec", "SharedFactors"]
