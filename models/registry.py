"""Finds the adapter of a model."""

from __future__ import annotations

import functools
from typing import Any

from edgeq.discovery import modules_of
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.architecture import choose_architecture
from edgeq.plugins import MODELS, plugins

RERANKING = "reranking"
"""Task of a classifier with one logit, which grades a document for a query."""

@functools.cache
def adapter_classes() -> dict[str, tuple[type[ModelAdapter], ...]]:
    """Returns the adapters, those of other packages included, by ``config.model_type``.

    A family has one for each form that its models come in. The first one has what its checkpoints are by default: those
    that only classify come last.

    Raises:
        UsageError: If another package's adapter is none, or is for a family that has one.
    """
    found: dict[str, tuple[type[ModelAdapter], ...]] = {}
    for builtin in sorted(_builtin(), key=lambda one: (one.family, set(one.architectures.values()) == {"classify"})):
        found[builtin.family] = (*found.get(builtin.family, ()), builtin)
    for plugin in plugins(MODELS):
        adapter = plugin.value
        if not (isinstance(adapter, type) and issubclass(adapter, ModelAdapter)):
            raise UsageError(f"{plugin.where} should be a subclass of edgeq.models.ModelAdapter, found {adapter!r}")
        if adapter.family in found:
            raise UsageError(f"{plugin.where} is for model type {adapter.family!r}, which has an adapter already")
        found[adapter.family] = (adapter,)
    return found


def _builtin() -> list[type[ModelAdapter]]:
    """The adapters that the files of this folder define: classes that say which model classes they are for."""
    return [
        value
        for module in modules_of("edgeq.models")
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ModelAdapter)
        and value.__module__ == module.__name__
        and "architectures" in vars(value)
    ]


def supported_architectures() -> list[str]:
    """Returns the class names of all models that edgeq can compress."""
    return [name for architectures in supported_families().values() for name in architectures]


def supported_families() -> dict[str, dict[str, Task]]:
    """Returns the model classes of each family, and what each is for, by ``config.model_type``."""
    return {
        family: {name: task for adapter in adapters for name, task in adapter.architectures.items()}
        for family, adapters in adapter_classes().items()
    }


def adapter_for(config_or_model: Any, task: str | None = None, *, exact: bool = False) -> ModelAdapter:
    """Returns the adapter of a ``transformers`` model or configuration.

    Args:
        config_or_model: A ``PreTrainedModel``, or a configuration, whose ``architectures`` may name the class.
        task: What to make of a configuration, by ``transformers``' name; None takes the class that is named, see
            :func:`~edgeq.models.architecture.choose_architecture`.
        exact: Whether a configuration names the class that it was made for, pre-trained or not; a model does so always.

    Raises:
        UsageError: If there is no such task.
        UnsupportedError: If no adapter knows the architecture.
        FormatError: If the configuration contradicts itself.
    """
    config = getattr(config_or_model, "config", config_or_model)
    named = type(config_or_model).__name__ if config is not config_or_model else _named(config)
    check_family(config.model_type, named)
    adapters = adapter_classes()[config.model_type]
    by_name = {name: adapter for adapter in adapters for name in adapter.architectures}
    exact = exact or config is not config_or_model
    name = choose_architecture(named, list(by_name), model_type=config.model_type, task=task, exact=exact)
    chosen = by_name[name](config, name)
    if task == RERANKING and len(chosen.labels) != 1:
        raise UnsupportedError(
            f"a model for reranking gives one number, and {chosen.architecture} has {len(chosen.labels)} labels "
            f"({', '.join(chosen.labels)}); take it for text-classification"
        )
    return chosen


def check_family(model_type: str, named: str | None) -> None:
    """Raises :class:`UnsupportedError` if no adapter knows a ``model_type``, of which ``named`` is a class."""
    if model_type not in adapter_classes():
        raise UnsupportedError(
            f"{named or 'this model'} (model type {model_type!r}) is not supported; "
            f"edgeq supports {', '.join(supported_architectures())}"
        )


def _named(config: Any) -> str | None:
    named = config.architectures
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise FormatError(f"config.json: 'architectures' must be a list of names, found {named!r}")
    return named[0] if named else None
