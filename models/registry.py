"""Finds the adapter of a model."""

from __future__ import annotations

from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.albert import AlbertAdapter
from edgeq.models.bart import BartAdapter
from edgeq.models.bert import BertAdapter
from edgeq.models.distilbert import DistilBertAdapter
from edgeq.models.electra import ElectraAdapter
from edgeq.models.gpt2 import Gpt2Adapter
from edgeq.models.roberta import CamembertAdapter, RobertaAdapter, XlmRobertaAdapter

_ADAPTERS: dict[str, type[ModelAdapter]] = {
    adapter.family: adapter
    for adapter in (
        *(BertAdapter, RobertaAdapter, XlmRobertaAdapter, CamembertAdapter, DistilBertAdapter),
        *(ElectraAdapter, AlbertAdapter, Gpt2Adapter, BartAdapter),
    )
}


def supported_architectures() -> list[str]:
    """Returns the class names of all models that edgeq can compress."""
    return [name for adapter in _ADAPTERS.values() for name in adapter.architectures]


def supported_families() -> dict[str, dict[str, Task]]:
    """Returns the model classes of each family, and what each is for, by ``config.model_type``."""
    return {family: dict(adapter.architectures) for family, adapter in _ADAPTERS.items()}


def adapter_for(config_or_model: Any) -> ModelAdapter:
    """Returns the adapter of a ``transformers`` model or configuration.

    Args:
        config_or_model: A ``PreTrainedModel``, or a configuration whose ``architectures`` names the class.

    Raises:
        UnsupportedError: If no adapter knows the architecture.
        FormatError: If the configuration contradicts itself.
    """
    config = getattr(config_or_model, "config", config_or_model)
    if config is not config_or_model:
        architecture = type(config_or_model).__name__
    else:
        named = config.architectures
        architecture = str(named[0]) if isinstance(named, list) and named else ""
    adapter = _ADAPTERS.get(config.model_type)
    if adapter is None or architecture not in adapter.architectures:
        found = architecture or "a configuration that names no architecture"
        raise UnsupportedError(
            f"{found} (model type {config.model_type!r}) is not supported; "
            f"edgeq supports {', '.join(supported_architectures())}"
        )
    return adapter(config, architecture)
