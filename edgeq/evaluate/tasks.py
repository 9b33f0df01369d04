"""Measures a model on data of its task, on any backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeq.backends import Backend
from edgeq.evaluate.batches import Batches, Prompt
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning
from edgeq.formats.sentence_model import SentenceModel
from edgeq.progress import Progress, silent

_DEFAULT_MAX_LENGTH = 512


def evaluate(
    model: Backend,
    tokenizer: Any,
    data: EvaluationData,
    *,
    sentence: SentenceModel | None = None,
    labels: Sequence[str] = (),
    max_length: int = _DEFAULT_MAX_LENGTH,
    batch_size: int = 32,
    progress: Progress = silent,
) -> Evaluation:
    """Runs a model over evaluation data.

    Args:
        model: The model; see :class:`~edgeq.evaluate.batches.Batches`.
        tokenizer: A ``transformers`` tokenizer.
        data: The examples.
        sentence: What stands before and behind the model: the prompt of every text, the longest text, how embeddings
            are compared. None for a model that is no sentence model.
        labels: Label names in the order of the logits, for models that have labels.
        max_length: Longer texts are cut to this many tokens, or read in parts where the task can do that; to fewer
            where ``sentence`` or else the tokenizer says so.
        batch_size: Texts in one batch.
        progress: Told how many batches are done.

    Raises:
        UsageError: If the data are for another kind of model, or hold an unknown label.
    """
    own = sentence.max_tokens if sentence is not None else None
    max_length = min(max_length, own or getattr(tokenizer, "model_max_length", max_length))
    prompt = Prompt.of(sentence, tokenizer, max_length=max_length)
    run = Batches(model, tokenizer, max_length, batch_size, progress, prompt)
    return data.measure(run, Meaning(labels, sentence))
