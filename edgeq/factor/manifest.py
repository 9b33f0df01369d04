"""The part of ``config.json`` that describes factorised layers: written, read back and checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

from torch import nn

from edgeq.errors import FormatError
from edgeq.factor.cost import Evaluate
from edgeq.factor.kinds import KINDS, FactorSpec
from edgeq.quant.manifest import is_body, name_in


@dataclasses.dataclass(frozen=True)
class FactorManifest:
    """What a checkpoint says about its factorised layers.

    Attributes:
        layers: Their sizes by module name, what they share first; empty for a dense model.
        evaluate: How they are computed, if the recipe forces it.
    """

    layers: dict[str, FactorSpec] = dataclasses.field(default_factory=dict)
    evaluate: Evaluate = "auto"

    def to_json(self) -> dict[str, Any]:
        """Returns the value of ``factors``; an empty one for a dense model.

        ``dense`` is the number of weights, without the bias, that an entry stands for.
        """
        if not self.layers:
            return {}
        layers = {name: {**spec.to_json(), "dense": dense_weights(spec)} for name, spec in self.layers.items()}
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

    def for_model(self, model: nn.Module) -> dict[str, FactorSpec]:
        """Returns the layers with the names that they have in ``model``, which may be the body without its head.

        What layers refer to comes before them, in whatever order they were read.

        Raises:
            FormatError: If the model lacks a layer.
        """
        renamed: dict[str, FactorSpec] = {}
        for stored, spec in sorted(self.layers.items(), key=lambda entry: bool(entry[1].refers_to)):
            name = _owner_name(model, stored) if spec.is_shared else name_in(model, stored)
            if name is None and spec.belongs_to_head and is_body(model):
                continue
            if name is None:
                raise FormatError(f"config.json: {type(model).__name__} has no layer {stored!r} to be factorised")
            others = {field: _name_of_other(model, getattr(spec, field)) for field in spec.refers_to}
            renamed[name] = dataclasses.replace(spec, **others)
        return renamed


def dense_weights(spec: FactorSpec) -> int:
    """Returns the weights of the dense layer that a factorised one stands for; 0 for what layers share."""
    return 0 if spec.shape is None else math.prod(spec.shape)


def _name_of_other(model: nn.Module, stored: str) -> str:
    """Name in ``model`` of a module that is there, or that is yet to be added."""
    return name_in(model, stored) or _owner_name(model, stored) or stored


def _owner_name(model: nn.Module, name: str) -> str | None:
    """Name in ``model`` of a module that is yet to be added to an owner that is there."""
    owner, _, attribute = name.rpartition(".")
    found = name_in(model, owner) if owner else ""
    return None if found is None else f"{found}.{attribute}".lstrip(".")


def _spec(name: str, entry: object) -> FactorSpec:
    try:
        if not isinstance(entry, dict):
            raise TypeError
        return KINDS[entry["kind"]].from_json(entry)
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"config.json: the entry of factorised layer {name!r} makes no sense") from None
