"""What is made of a checkpoint: which class of ``transformers``, from what its configuration and the user say."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import UnsupportedError, UsageError, nearest_name_hint
from edgeq.formats.tasks import PIPELINES

_OF_PRETRAINING = ("ForMaskedLM", "ForPreTraining")
"""Ends of class names that say how a model was pre-trained, and not for what it is meant."""
_PRETRAINED = (*_OF_PRETRAINING, "Model")
"""Ends of class names whose checkpoints are starting points rather than models for a task."""
_HEAD = "Head"
"""In the names of classes that end in ``Model`` and are not the bare one, such as ``GPT2LMHeadModel``."""


def choose_architecture(
    named: str | None, known: Sequence[str], *, model_type: str, task: str | None = None, exact: bool = False
) -> str:
    """Returns the class to make of a checkpoint.

    Without a task it is the one that the configuration names. Where that is one of pre-training (``...ForMaskedLM``),
    or nothing is named, it is the first of the family's adapter: the encoder, or for families that generate text the
    model with its output head.

    Args:
        named: The class that ``config.json`` names, or None.
        known: The classes that the family's adapter knows, in its order.
        model_type: The family, for messages.
        task: A name of a task, or None.
        exact: Whether what is named was made for its task, as a compressed model was, so that there is no default.

    Raises:
        UsageError: If there is no such task.
        UnsupportedError: If edgeq has nothing for the task, or for the class that is named.
    """
    if task is not None:
        return _for_task(task, known, model_type)
    if named in known and (exact or not is_of_pretraining(str(named))):
        return str(named)
    if named is None or (named.endswith(_PRETRAINED) and _HEAD not in named):
        return known[0]
    raise UnsupportedError(
        f"{named} (model type {model_type!r}) is not supported; edgeq supports {', '.join(known)} of this type, which "
        f"--task chooses ({', '.join(tasks_of(known))})"
    )


def is_of_pretraining(architecture: str) -> bool:
    """Tells whether a class says how a model was pre-trained, and not for what it is meant."""
    return architecture.endswith(_OF_PRETRAINING)


def tasks_of(known: Sequence[str]) -> list[str]:
    """Returns the names that ``transformers`` has for the tasks that classes are for."""
    return [pipeline for pipeline, task in PIPELINES.items() if any(map(task.is_of, known))]


def _for_task(task: str, known: Sequence[str], model_type: str) -> str:
    if task not in PIPELINES:
        hint = nearest_name_hint(task, list(PIPELINES))
        raise UsageError(f"there is no task {task!r}{hint} (known: {', '.join(PIPELINES)})")
    for name in known:
        if PIPELINES[task].is_of(name):
            return name
    raise UnsupportedError(
        f"edgeq has no {task} for model type {model_type!r}; it has {', '.join(tasks_of(known))}"
    )
