"""From the logits of where an answer starts and ends to the answer, as the question-answering pipeline of transformers.

Every pair of a start and an end within one window is a candidate, with the product of the two probabilities among the
tokens of the context as its score. Candidates of overlapping windows that are the same text add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.evaluate.batches import Tokens

_CANDIDATES = 12
"""Pairs of each window that are looked at: what transformers takes for one answer."""
_LONGEST_ANSWER = 15
"""Tokens."""
_LONGEST_WINDOW, _LARGEST_OVERLAP = 384, 128
_HIDDEN = -10000.0


@dataclasses.dataclass(frozen=True)
class Window:
    """A question with a part of its context.

    Attributes:
        tokens: The tokens, special ones included.
        allowed: bool ``[tokens]``: those of the context, and the first one, which means that there is no answer.
        places: For each token, the first character in the context of its word and the one behind its last.
    """

    tokens: Tokens
    allowed: np.ndarray
    places: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Span:
    """An answer.

    Attributes:
        text: Its text; empty where there is none.
        start: Its first character in the context.
        end: The character behind its last.
        score: Its probability.
    """

    text: str
    start: int
    end: int
    score: float


def windows_of(tokenizer: Any, question: str, context: str, *, max_length: int) -> list[Window]:
    """Cuts a context into windows that a model can read.

    Args:
        tokenizer: A fast ``transformers`` tokenizer.
        question: Comes first in every window.
        context: Is cut, with an overlap.
        max_length: Most tokens of a window.
    """
    longest = min(max_length, _LONGEST_WINDOW)
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=longest,
        stride=min(longest // 2, _LARGEST_OVERLAP),
        return_token_type_ids=True,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = []
    for number, encoding in enumerate(encoded.encodings):
        ids, sequences = encoding.ids, encoding.sequence_ids
        allowed = np.array([which == 1 for which in sequences])
        allowed |= np.array(ids) == tokenizer.cls_token_id  # some models put "no answer" there
        tokens = {key: encoded[key][number] for key in ("input_ids", "token_type_ids")}
        windows.append(Window(tokens, allowed, [_place(encoding, index) for index in range(len(ids))]))
    return windows


def best_span(
    context: str, windows: Sequence[Window], logits: Sequence[tuple[np.ndarray, np.ndarray]], *, may_be_none: bool
) -> Span:
    """Returns the answer with the largest score.

    Args:
        context: The text that it is a part of.
        windows: What the model has read.
        logits: Of each window, float32 ``[tokens]`` of starts and of ends; more at the end are padding.
        may_be_none: Whether there may be no answer.
    """
    found: dict[str, Span] = {}
    none = 1e6
    for window, (starts, ends) in zip(windows, logits, strict=True):
        begin, finish = (_probabilities(values, window.allowed) for values in (starts, ends))
        none = min(none, float(begin[0] * finish[0]))
        begin[0] = finish[0] = 0.0
        for start, end, score in _candidates(begin, finish, window.allowed):
            first, last = window.places[start][0], window.places[end][1]
            text = context[first:last]
            same = found.get(text.lower())
            found[text.lower()] = Span(text, first, last, score) if same is None else _more_likely(same, score)
    spans = [*found.values(), *([Span("", 0, 0, none)] if may_be_none else [])]
    return max(spans, key=lambda span: span.score, default=Span("", 0, 0, 0.0))


def _place(encoding: Any, token: int) -> tuple[int, int]:
    word = encoding.token_to_word(token) if encoding.sequence_ids[token] == 1 else None
    start, end = encoding.word_to_chars(word, 1) if word is not None else encoding.offsets[token]
    return int(start), int(end)


def _probabilities(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    values = np.where(allowed, logits[: len(allowed)], np.float32(_HIDDEN))
    values = np.exp(values - values.max())
    return np.asarray(values / values.sum())


def _candidates(begin: np.ndarray, finish: np.ndarray, allowed: np.ndarray) -> list[tuple[int, int, float]]:
    products = np.tril(np.triu(np.outer(begin, finish)), _LONGEST_ANSWER - 1)
    flat = products.ravel()
    count = min(_CANDIDATES, len(flat))
    best = np.argpartition(-flat, count - 1)[:count]
    best = best[np.argsort(-flat[best], kind="stable")]
    pairs = [divmod(int(place), len(begin)) for place in best]
    return [(s, e, float(products[s, e])) for s, e in pairs if allowed[s] and allowed[e]]


def _more_likely(span: Span, score: float) -> Span:
    return dataclasses.replace(span, score=span.score + score)
