"""Measures a language model on a text: perplexity over windows, on any backend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeq.backends import Backend
from edgeq.errors import EdgeqError, UsageError
from edgeq.evaluate.data import TextFile
from edgeq.progress import Progress, silent

_MOST_LOSS = 700.0
"""Natural logarithm of the largest perplexity that is measured; float64 ends at 709."""


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """A measured result.

    Attributes:
        value: Perplexity per token: the exponential of the mean negative log-probability.
        tokens: Number of tokens that were predicted.
        word_perplexity: The same loss over the words (between white space) instead of the tokens, which can be
            compared between models of different vocabularies; None where only a part of the text was read, or where
            words are so long (there is no white space) that it is no finite number.
        windows: Number of times the model ran over a window.
        context: Longest window, in tokens that the model reads.
        stride: Tokens that each window after the first predicts.
        log_probabilities: float32, ``[tokens]``, in the order of the text.
    """

    value: float
    tokens: int
    word_perplexity: float | None
    windows: int
    context: int
    stride: int
    log_probabilities: np.ndarray


def evaluate_perplexity(
    model: Backend,
    tokenizer: Any,
    text: TextFile,
    *,
    context: int,
    stride: int | None = None,
    max_tokens: int | None = None,
    batch_size: int = 1,
    progress: Progress = silent,
) -> Perplexity:
    """Runs a language model over a text.

    The whole text is one stream of tokens behind the tokenizer's beginning-of-text token, so that every token
    of the text is predicted exactly once. A window is ``context`` tokens that the model reads. Windows follow
    each other block by block (``stride`` left out), or overlap (``stride`` below ``context``), which gives each
    token more to go by and takes longer. The last window ends with the text and is no shorter than the others.

    Args:
        model: Given ``input_ids`` (int64, ``[batch, length]``, no padding), it returns ``log_probabilities``: the
            natural logarithm of the probability of each id after the first (float, ``[batch, length - 1]``).
            :mod:`edgeq.backends.log_probabilities` has such models.
        tokenizer: A ``transformers`` tokenizer.
        text: The text.
        context: Tokens of a window; at most the model's positions.
        stride: Tokens by which windows advance; by default ``context``.
        max_tokens: Predict no more than this many tokens, from the beginning of the text.
        batch_size: Windows that are run at a time.
        progress: Told how many windows are done.

    Raises:
        UsageError: If a number makes no sense, or the text has too few tokens.
        EdgeqError: If the model gives a window probabilities of which there is no finite perplexity.
    """
    stride = context if stride is None else stride
    if context < 1 or not 1 <= stride <= context or batch_size < 1:
        raise UsageError(
            f"perplexity needs 1 <= stride <= context and a batch of 1 or more, found stride {stride}, "
            f"context {context}, batch {batch_size}"
        )
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"perplexity needs 1 token or more to predict, found {max_tokens}")
    ids = _stream(tokenizer, text)
    partial = max_tokens is not None and max_tokens < len(ids) - 1
    ids = ids[: max_tokens + 1] if partial and max_tokens is not None else ids
    predicted, windows = _run(model, ids, context, stride, batch_size, progress)
    _check_measurable(predicted, context, text)
    loss = -float(predicted.sum(dtype=np.float64))
    words = len(text.content.split())
    return Perplexity(
        value=math.exp(loss / len(predicted)),
        tokens=len(predicted),
        word_perplexity=None if partial or loss / words > _MOST_LOSS else math.exp(loss / words),
        windows=windows,
        context=context,
        stride=stride,
        log_probabilities=predicted,
    )


def same_tokens(first: Any, second: Any, text: str) -> bool:
    """Tells whether two tokenizers cut a text in the same way, whatever numbers the tokens have.

    Args:
        first: A ``transformers`` tokenizer.
        second: The same, or with fewer tokens.
        text: The text.
    """
    if len(first) == len(second):
        return True
    ids = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for tokenizer in (first, second)]
    return bool(first.convert_ids_to_tokens(ids[0]) == second.convert_ids_to_tokens(ids[1]))


def _stream(tokenizer: Any, text: TextFile) -> np.ndarray:
    # "verbose" would warn that the text is longer than the model's positions, which windows are there for.
    ids = tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"]
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    stream = np.asarray(ids if first is None else [first, *ids], np.int64)
    if len(stream) < 2:
        raise UsageError(f"{text.path} is too short: perplexity needs a token to read and one to predict")
    return stream


def _run(
    model: Backend, ids: np.ndarray, context: int, stride: int, batch_size: int, progress: Progress
) -> tuple[np.ndarray, int]:
    predicted = np.empty(len(ids) - 1, np.float32)
    windows = list(_windows(len(ids) - 1, context, stride))
    for first in range(0, len(windows), batch_size):
        progress("measuring perplexity", first, len(windows))
        chosen = windows[first : first + batch_size]
        outputs = model({"input_ids": np.stack([ids[start : stop + 1] for start, _, stop in chosen])})
        for row, (start, new, stop) in zip(outputs["log_probabilities"], chosen, strict=True):
            predicted[new:stop] = row[new - start :]
    progress("measuring perplexity", len(windows), len(windows))
    return predicted, len(windows)


def _windows(count: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields where a window begins, which prediction is its first new one, and where it ends."""
    stop = min(context, count)
    yield 0, 0, stop
    while stop < count:
        new, stop = stop, min(stop + stride, count)
        yield stop - context, new, stop


def _check_measurable(predicted: np.ndarray, context: int, text: TextFile) -> None:
    """Refuses log-probabilities that no perplexity follows from, in the whole text or in one of its windows."""
    starts = range(0, len(predicted), context)
    loss = float(np.max([-predicted[start : start + context].mean(dtype=np.float64) for start in starts]))
    if not loss <= _MOST_LOSS:  # NaN is no number below it either
        raise EdgeqError(
            f"{text.path}: the model gives a window of {context} tokens a mean log-probability of {-loss:.6g}, of "
            "which no perplexity can be computed: its weights are damaged, or ruined by a recipe of too few bits"
        )
