"""The evaluation data of a search: a half to choose by, and a half that the search does not see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeq.backends.log_probabilities import TorchLogProbabilities
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint
from edgeq.deploy.accuracy import metric_loss
from edgeq.deploy.perplexity import perplexity_loss
from edgeq.errors import UnsupportedError, UsageError
from edgeq.evaluate.data import TextFile, read_text_file
from edgeq.evaluate.evaluation import Evaluation, EvaluationData
from edgeq.evaluate.kinds import read_evaluation_data
from edgeq.evaluate.perplexity import Perplexity, evaluate_perplexity
from edgeq.evaluate.tasks import evaluate
from edgeq.models import GenerativeAdapter, ModelAdapter, TorchDecoder, TorchEncoder
from edgeq.results import Loss

FEWEST_EXAMPLES = 50
"""Fewer in a half give intervals that no budget can be judged by."""
_WINDOW = 128
_MOST_TOKENS = 8192
_FEWEST_WORDS = 2000

Measured = Evaluation | Perplexity


@dataclasses.dataclass(frozen=True)
class Half:
    """One half of the evaluation data: examples, or a text for models that generate text."""

    content: EvaluationData | TextFile


def halves(path: Path, adapter: ModelAdapter, *, seed: int) -> tuple[Half, Half]:
    """Returns the half that the search chooses by, and the half that it does not see.

    Raises:
        UsageError: If the data are missing, of another kind, or too few to tell anything.
        UnsupportedError: If the model writes texts of others, whose quality is not measured.
    """
    if adapter.task == "seq2seq":
        raise UnsupportedError(f"the quality of a {adapter.architecture} is not measured, so no recipe can be searched")
    if adapter.task == "generate":
        return _text_halves(read_text_file(path))
    data: Any = read_evaluation_data(path, adapter.task)
    if len(data.examples) < 2 * FEWEST_EXAMPLES:
        raise UsageError(
            f"{path} has {len(data.examples)} examples, too few to tell recipes apart; a search needs "
            f"{2 * FEWEST_EXAMPLES} or more, and some hundreds to promise a loss of a per cent"
        )
    order = np.random.default_rng(seed).permutation(len(data.examples))
    middle = len(order) // 2
    parts = (sorted(order[:middle].tolist()), sorted(order[middle:].tolist()))
    own, held = (dataclasses.replace(data, examples=[data.examples[index] for index in part]) for part in parts)
    return Half(own), Half(held)


def _text_halves(text: TextFile) -> tuple[Half, Half]:
    words = len(text.content.split())
    if words < _FEWEST_WORDS:
        raise UsageError(f"{text.path} has {words} words, too few to tell recipes apart; give {_FEWEST_WORDS} or more")
    middle = text.content.find("\n", len(text.content) // 2)
    middle = len(text.content) // 2 if middle < 0 else middle
    return (
        Half(dataclasses.replace(text, content=text.content[:middle])),
        Half(dataclasses.replace(text, content=text.content[middle:])),
    )


def measure(checkpoint: Checkpoint, half: Half) -> Measured:
    """Measures a float or compressed model on a half."""
    adapter = checkpoint.adapter
    if isinstance(half.content, EvaluationData):
        return evaluate(
            TorchBackend(TorchEncoder(checkpoint.model, adapter)),
            checkpoint.tokenizer,
            half.content,
            sentence=checkpoint.sentence,
            labels=adapter.labels,
            max_length=adapter.max_positions,
        )
    if not isinstance(adapter, GenerativeAdapter):
        raise UnsupportedError(f"{adapter.architecture} does not generate text: it has no perplexity")
    decoder = TorchDecoder(checkpoint.model, adapter, cache_dtype=torch.float32)
    window = min(_WINDOW, adapter.max_positions)
    return evaluate_perplexity(
        TorchLogProbabilities(decoder.score),
        checkpoint.tokenizer,
        half.content,
        context=window,
        max_tokens=_MOST_TOKENS,
        batch_size=8,
    )


def loss_of(reference: Measured, result: Measured) -> Loss:
    """Returns what compression costs, with its paired 95% interval; of perplexity, the increase."""
    if isinstance(reference, Perplexity) and isinstance(result, Perplexity):
        return perplexity_loss(reference, result)
    if isinstance(reference, Evaluation) and isinstance(result, Evaluation):
        return metric_loss(reference, result)
    raise UsageError("a model was measured in two ways; search again in a new folder")


def metric_name(measured: Measured) -> str:
    """Returns what was measured: a metric of :mod:`edgeq.evaluate.metrics`, or ``perplexity``."""
    return "perplexity" if isinstance(measured, Perplexity) else measured.metric


def count_of(measured: Measured) -> int:
    """Returns on how many examples or tokens."""
    return measured.tokens if isinstance(measured, Perplexity) else measured.count
