"""Texts to embeddings or labels with a bundle, and what is known of each text beside them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.scores import Scores, class_names
from edgeq.targets.runtime.text_reading import given_texts, task_of, text_windows
from edgeq.targets.runtime.texts import Text

if TYPE_CHECKING:
    from edgeq.targets.runtime import native
    from edgeq.targets.runtime.text_calls import TextCalls


@dataclasses.dataclass(frozen=True)
class TextResult:
    """What a model says of one text.

    Attributes:
        text: The text, or a pair of them.
        tokens: Number of its tokens, special ones and those of a prompt included.
        truncated: Whether tokens at an end were cut off, because the model reads no more.
        embedding: float32 ``[width]``, or None for a classifier.
        scores: The score of each class, or None for an embedding.
        rows: In how many rows it was read: more than 1 if it was split.
    """

    text: Text
    tokens: int
    truncated: bool = False
    embedding: np.ndarray | None = None
    scores: Scores | None = None
    rows: int = 1

    @property
    def label(self) -> str | None:
        """Name of the class with the highest score, or None for an embedding."""
        return None if self.scores is None else self.scores.label

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values, without the fields that do not apply."""
        table = read_json(self.text, self.tokens, truncated=self.truncated, rows=self.rows)
        if self.embedding is not None:
            table["embedding"] = [float(value) for value in self.embedding]
        if self.scores is not None:
            table |= self.scores.to_json()
        return table


def read_json(text: Text, tokens: int, *, truncated: bool, rows: int) -> dict[str, Any]:
    """Returns what every result says of its text, as plain JSON values."""
    parts = {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
    table: dict[str, Any] = {**parts, "tokens": tokens}
    if truncated:
        table["truncated"] = True
    if rows > 1:
        table["rows"] = rows
    return table


def run_texts(bundle: TextCalls, texts: Iterable[Text], **reading: Any) -> Iterator[TextResult]:
    """Runs texts through a bundle and yields the results in the order of the texts.

    Texts of about the same length run together, so little padding is computed; neither that nor the budget changes a
    bit of a result. Texts are taken, checked and run in windows of about 64 full batches, the first one before this
    returns. So the memory depends on the budget and the longest text, and not on the number of texts.

    Args:
        bundle: A loaded bundle that carries a tokenizer.
        texts: The texts, or pairs of texts; any iterable.
        **reading: How they are read; see :func:`edgeq.targets.runtime.text_options.text_options`.

    Raises:
        UsageError: If a text is empty or longer than the model allows, the model has no such prompt, an option makes no
            sense, or the bundle has no tokenizer.
    """
    results = _embedded if task_of(bundle) == "embed" else _classified
    found = (results(bundle, window, options) for window, options in text_windows(texts, reading))
    # A bad text among the first ones is found here, and not when a result is asked for.
    first = list(itertools.islice(found, 1))
    return itertools.chain.from_iterable(itertools.chain(first, found))


def predict(bundle: TextCalls, texts: Iterable[Text], **reading: Any) -> list[TextResult]:
    """Returns label and scores of each text; see :meth:`edgeq.targets.runtime.loader.Bundle.predict`."""
    if task_of(bundle) == "embed":
        raise UsageError(f"bundle {bundle.path} embeds texts and gives no labels; use encode()")
    return list(run_texts(bundle, texts, **reading))


def tokenize(bundle: TextCalls, texts: Iterable[Text], **reading: Any) -> list[list[int]]:
    """Returns the token ids of each text; see :meth:`edgeq.targets.runtime.loader.Bundle.tokenize`."""
    ids: list[list[int]] = []
    for window, options in text_windows(texts, reading):
        rows = bundle.session.encode(given_texts(window, options), options)
        ids += [np.concatenate([row["id"] for row in text]).tolist() for text in rows]
    return ids


def _embedded(bundle: TextCalls, window: list[Text], options: native.TextOptions) -> list[TextResult]:
    vectors, readings = bundle.session.embed(given_texts(window, options), options, bundle.model.width)
    return [
        TextResult(text, reading.tokens, bool(reading.is_cut), embedding=vector, rows=reading.rows)
        for text, vector, reading in zip(window, vectors, readings, strict=True)
    ]


def _classified(bundle: TextCalls, window: list[Text], options: native.TextOptions) -> list[TextResult]:
    width = bundle.model.width
    names = class_names(bundle.model.labels, width)
    _, found, readings = bundle.session.classify(given_texts(window, options), options, width)
    return [
        TextResult(text, reading.tokens, bool(reading.is_cut), scores=Scores(names, tuple(values)), rows=reading.rows)
        for text, values, reading in zip(window, found.tolist(), readings, strict=True)
    ]
