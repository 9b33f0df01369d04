"""The tasks: what each kind of model is for, once, with the names that transformers, files and reports have for it.

Everything that depends on a task asks this table, or a table of its own by the task's name: how it is measured is in
:mod:`edgeq.evaluate`, what it is trained on in :mod:`edgeq.training`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

WHOLE_TEXT = ("batch",)
EVERY_TOKEN = ("batch", "sequence")
_NOT_BARE = ("Head", "MTModel")
"""In the names of classes that end in ``Model`` and are not the bare one: ``GPT2LMHeadModel``, ``MarianMTModel``."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a kind of model is for.

    Attributes:
        name: The task's name in manifests and adapters.
        does: What the model gives, in a few words, for tables and messages.
        pipelines: Names by which ``transformers`` and its users ask for the task, the usual one first.
        class_ends: How classes of ``transformers`` for it are called.
        outputs: Outputs of the graph with their leading dimensions. Models that generate text have others as well.
        has_labels: Whether the model has names for its logits.
        generates: Whether the model generates text token by token.
    """

    name: str
    does: str
    pipelines: tuple[str, ...]
    class_ends: tuple[str, ...]
    outputs: Mapping[str, tuple[str, ...]]
    has_labels: bool = False
    generates: bool = False

    def is_of(self, architecture: str) -> bool:
        """Tells whether a class of ``transformers`` is for this task, by its name."""
        ends = [end for end in self.class_ends if architecture.endswith(end)]
        is_bare = not any(mark in architecture for mark in _NOT_BARE)
        return any(is_bare or any(mark in end for mark in _NOT_BARE) for end in ends)


_ALL = (
    Task(
        "embed",
        "embeddings",
        ("feature-extraction", "sentence-similarity"),
        ("Model",),
        {"last_hidden_state": EVERY_TOKEN},
    ),
    Task(
        "classify",
        "labels of texts, rerankers",
        ("text-classification", "sentiment-analysis", "reranking"),
        ("ForSequenceClassification",),
        {"logits": WHOLE_TEXT},
        has_labels=True,
    ),
    Task(
        "tag",
        "labels of tokens",
        ("token-classification", "ner"),
        ("ForTokenClassification",),
        {"logits": EVERY_TOKEN},
        has_labels=True,
    ),
    Task(
        "answer",
        "answers from a context",
        ("question-answering",),
        ("ForQuestionAnswering",),
        {"start_logits": EVERY_TOKEN, "end_logits": EVERY_TOKEN},
    ),
    Task("fill", "words for a mask", ("fill-mask",), ("ForMaskedLM",), {"logits": EVERY_TOKEN}),
    Task(
        "generate",
        "generates text",
        ("text-generation",),
        ("LMHeadModel", "ForCausalLM"),
        {"logits": EVERY_TOKEN},
        generates=True,
    ),
    Task(
        "seq2seq",
        "generates a text from a text",
        ("text2text-generation",),
        ("ForConditionalGeneration", "MTModel"),
        {"logits": EVERY_TOKEN},
        generates=True,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
"""The tasks by name."""
PIPELINES: dict[str, Task] = {pipeline: task for task in _ALL for pipeline in task.pipelines}
"""The tasks by the names that ``transformers`` has for them."""
GENERATING = tuple(task.name for task in _ALL if task.generates)
"""Names of the tasks of models that generate text."""


def task_of_class(architecture: str) -> Task:
    """Returns what a class of ``transformers`` is for, by its name; an unknown one gives embeddings."""
    return next((task for task in _ALL if task.is_of(architecture)), TASKS["embed"])
