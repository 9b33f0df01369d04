"""What is made of a checkpoint: which class of ``transformers``, from what its configuration and the user say."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import UnsupportedError, UsageError, nearest_name_hint

TASKS: dict[str, tuple[str, ...]] = {
    "feature-extraction": ("Model",),
    "sentence-similarity": ("Model",),
    "text-classification": ("ForSequenceClassification",),
    "sentiment-analysis": ("ForSequenceClassification",),
    "token-classification": ("ForTokenClassification",),
    "question-answering": ("ForQuestionAnswering",),
    "fill-mask": ("ForMaskedLM",),
    "text-generation": ("LMHeadModel", "ForCausalLM"),
    "text2text-generation": ("ForConditionalGeneration",),
}
"""Names of tasks as ``transformers`` has them, with how classes for them are called."""
_PRETRAINED = ("ForMaskedLM", "ForPreTraining", "Model")
"""Ends of class names whose checkpoints are starting points rather than models for a task."""
_HEAD = "Head"
"""In the names of classes that end in ``Model`` and are not the bare one, such as ``GPT2LMHeadModel``."""


def choose_architecture(
    named: str | None, known: Sequence[str], *, model_type: str, task: str | None = None
) -> str:
    """Returns the class to make of a checkpoint.

    Without a task it is the one that the configuration names. Where that is one of pre-training (``...ForMaskedLM``),
    or nothing is named, it is the first that the family's adapter lists: the encoder, or for families that make text
    the model with its output head.

    Args:
        named: The class that ``config.json`` names, or None.
        known: The classes that the family's adapter knows, in its order.
        model_type: The family, for messages.
        task: A name of a task, or None.

    Raises:
        UsageError: If there is no such task.
        UnsupportedError: If edgeq has nothing for the task, or for the class that is named.
    """
    if task is not None:
        return _for_task(task, known, model_type)
    if named in known:
        return str(named)
    if named is None or (named.endswith(_PRETRAINED) and _HEAD not in named):
        return known[0]
    raise UnsupportedError(
        f"{named} (model type {model_type!r}) is not supported; edgeq supports {', '.join(known)} of this type, which "
        f"--task chooses ({', '.join(tasks_of(known))})"
    )


def tasks_of(known: Sequence[str]) -> list[str]:
    """Returns the names of the tasks that classes are for."""
    return [task for task in TASKS if any(_is_for(name, task) for name in known)]


def _for_task(task: str, known: Sequence[str], model_type: str) -> str:
    if task not in TASKS:
        hint = nearest_name_hint(task, list(TASKS))
        raise UsageError(f"there is no task {task!r}{hint}; known are {', '.join(TASKS)}")
    for name in known:
        if _is_for(name, task):
            return name
    raise UnsupportedError(
        f"edgeq has no {task} for model type {model_type!r}; it has {', '.join(tasks_of(known))}"
    )


def _is_for(architecture: str, task: str) -> bool:
    ends = [end for end in TASKS[task] if architecture.endswith(end)]
    return any(_HEAD in end or _HEAD not in architecture for end in ends)
