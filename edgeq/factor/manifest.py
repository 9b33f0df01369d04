"""The part of ``config.json`` that describes factorised layers: written, read back and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

from torch import nn

from edgeq.errors import FormatError
from edgeq.factor.specs import (
    FOLDS,
    OUTER_FACTORS,
    BankSpec,
    BlockSpec,
    EmbeddingSpec,
    Evaluate,
    HeadSpec,
    KroneckerSpec,
    LayerSpec,
    LowRankSpec,
    TuckerSpec,
)
from edgeq.quant.manifest import is_body, name_in

_KINDS: dict[str, type] = {
    "bank": BankSpec,
    "blocks": BlockSpec,
    "embedding": EmbeddingSpec,
    "head": HeadSpec,
    "kronecker": KroneckerSpec,
    "low-rank": LowRankSpec,
    "tucker": TuckerSpec,
}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}
_LARGEST = 1 << 31
_ON_OTHERS = (TuckerSpec, HeadSpec)


@dataclasses.dataclass(frozen=True)
class FactorManifest:
    """What a checkpoint says about its factorised layers.

    Attributes:
        layers: Their sizes by module name, banks first; empty for a dense model.
        evaluate: How they are computed, if the recipe forces it.
    """

    layers: dict[str, LayerSpec] = dataclasses.field(default_factory=dict)
    evaluate: Evaluate = "auto"

    def to_json(self) -> dict[str, Any]:
        """Returns the value of ``factors``; an empty one for a dense model.

        ``dense`` is the number of weights, without the bias, that an entry stands for.
        """
        if not self.layers:
            return {}
        layers = {name: {**_entry(spec), "dense": dense_weights(spec)} for name, spec in self.layers.items()}
        return {"evaluate": self.evaluate, "layers": layers}

    @classmethod
    def from_json(cls, value: object) -> FactorManifest:
        """Reads the value of ``factors``.

        Raises:
            FormatError: If it does not describe factorised layers.
        """
        if value == {}:
            return cls()
        if not isinstance(value, dict) or not isinstance(value.get("layers"), dict):
            raise FormatError("config.json: 'factors' should hold 'layers'")
        if value.get("evaluate") not in get_args(Evaluate):
            known = ", ".join(get_args(Evaluate))
            raise FormatError(f"config.json: 'evaluate' of 'factors' should be one of {known}")
        layers = {name: _spec(name, entry) for name, entry in value["layers"].items()}
        return cls(layers, value["evaluate"])

    def for_model(self, model: nn.Module) -> dict[str, LayerSpec]:
        """Returns the layers with the names that they have in ``model``, which may be the body without its head.

        Banks and tables come before the layers on them, in whatever order they were read.

        Raises:
            FormatError: If the model lacks a layer.
        """
        renamed: dict[str, LayerSpec] = {}
        for stored, spec in sorted(self.layers.items(), key=lambda entry: isinstance(entry[1], _ON_OTHERS)):
            name = _owner_name(model, stored) if isinstance(spec, BankSpec) else name_in(model, stored)
            if name is None and isinstance(spec, HeadSpec) and is_body(model):
                continue
            if name is None:
                raise FormatError(f"config.json: {type(model).__name__} has no layer {stored!r} to be factorised")
            if isinstance(spec, TuckerSpec):
                spec = dataclasses.replace(spec, bank=_owner_name(model, spec.bank) or spec.bank)
            elif isinstance(spec, HeadSpec):
                spec = dataclasses.replace(spec, table=name_in(model, spec.table) or spec.table)
            renamed[name] = spec
        return renamed


def dense_weights(spec: LayerSpec) -> int:
    """Returns the weights of the dense layer that a factorised one stands for; 0 for what layers share."""
    return 0 if isinstance(spec, BankSpec | HeadSpec) else spec.rows * spec.columns


def _owner_name(model: nn.Module, name: str) -> str | None:
    """Name in ``model`` of a module that is yet to be added to an owner that is there."""
    owner, _, attribute = name.rpartition(".")
    found = name_in(model, owner) if owner else ""
    return None if found is None else f"{found}.{attribute}".lstrip(".")


def _entry(spec: LayerSpec) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": _NAMES[type(spec)], **dataclasses.asdict(spec)}
    if isinstance(spec, BlockSpec):
        entry["part"] = _entry(spec.part)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in entry.items()}


def _spec(name: str, entry: object) -> LayerSpec:
    try:
        return _parsed(entry)
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"config.json: the entry of factorised layer {name!r} makes no sense") from None


def _parsed(entry: object) -> Any:
    if not isinstance(entry, dict):
        raise TypeError
    cls = _KINDS[entry["kind"]]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        values[field.name] = _READERS[str(field.type)](entry[field.name])
    return cls(**values)


def _block(value: object) -> Any:
    part = _parsed(value)
    if not isinstance(part, KroneckerSpec | LowRankSpec):
        raise TypeError
    return part


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise TypeError
    return value


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or min(map(_count, value)) < 1:
        raise TypeError
    return value[0], value[1]


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _factors(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or any(factor not in OUTER_FACTORS for factor in value):
        raise TypeError
    return tuple(value)


def _fold(value: object) -> Any:
    if value not in FOLDS:
        raise ValueError
    return value


_READERS: Mapping[str, Callable[[object], Any]] = {
    "int": _count,
    "bool": _flag,
    "str": _text,
    "tuple[int, int]": _pair,
    "tuple[str, ...]": _factors,
    "Fold": _fold,
    "KroneckerSpec | LowRankSpec": _block,
}
"""By the annotation of a field of a description."""
