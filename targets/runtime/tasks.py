"""Texts to labels of their parts, to answers, to tokens for masks, and to an order of documents."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgeq.errors import UsageError
from edgeq.targets.runtime import native_tasks
from edgeq.targets.runtime.text import read_json
from edgeq.targets.runtime.text_options import text_options
from edgeq.targets.runtime.text_reading import given_texts, text_windows
from edgeq.targets.runtime.texts import Text, to_texts

if TYPE_CHECKING:
    from edgeq.targets.runtime.text_calls import TextCalls

AGGREGATIONS = ("none", "simple", "first", "average", "max")
"""How labels of tokens become labels of parts of a text, by the number that they have in the library."""


@dataclasses.dataclass(frozen=True)
class Entity:
    """A part of a text with its label.

    Attributes:
        label: Its label, without ``B-`` or ``I-`` unless there is no aggregation.
        score: Probability of the label.
        word: Made of the names of tokens; the text itself is at ``start`` to ``end``.
        start: First character in the text.
        end: Character behind the last one.
        index: Number of the token in its row; None with an aggregation.
    """

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns what transformers' pipeline returns."""
        places = {"word": self.word, "start": self.start, "end": self.end}
        if self.index is None:
            return {"entity_group": self.label, "score": self.score, **places}
        return {"entity": self.label, "score": self.score, "index": self.index, **places}


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer: its probability, the text as it stands in the context, and where."""

    score: float
    start: int
    end: int
    answer: str

    def to_json(self) -> dict[str, Any]:
        """Returns what transformers' pipeline returns."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Filling:
    """A token for a mask: its probability, number, text, and the whole text with it."""

    score: float
    token: int
    token_str: str
    sequence: str

    def to_json(self) -> dict[str, Any]:
        """Returns what transformers' pipeline returns."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Result:
    """What every result says of how its text was read.

    Attributes:
        text: The text, or a question with its context.
        tokens: Number of its tokens, special ones included.
        truncated: Whether tokens at an end were cut off.
        rows: In how many rows it was read: more than 1 if it was split.
    """

    text: Text
    tokens: int
    truncated: bool
    rows: int

    def _read(self) -> dict[str, Any]:
        return read_json(self.text, self.tokens, truncated=self.truncated, rows=self.rows)


@dataclasses.dataclass(frozen=True)
class TagResult(_Result):
    """The labelled parts of a text."""

    entities: list[Entity]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {**self._read(), "entities": [entity.to_json() for entity in self.entities]}


@dataclasses.dataclass(frozen=True)
class AnswerResult(_Result):
    """Answers to a question, the best first."""

    answers: list[Answer]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        table = {"question": self.text[0], "context": self.text[1], **self._read()}
        del table["text"], table["text_pair"]
        return {**table, "answers": [answer.to_json() for answer in self.answers]}


@dataclasses.dataclass(frozen=True)
class FillResult(_Result):
    """Tokens for each mask of a text, the best first."""

    masks: list[list[Filling]]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values: a list of fillings, or a list of such lists for several masks."""
        found = [[filling.to_json() for filling in mask] for mask in self.masks]
        return {**self._read(), "fillings": found[0] if len(found) == 1 else found}


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A document with its place.

    Attributes:
        index: Its number among the documents that were given.
        score: How well it fits.
        text: The document.
        tokens: Tokens of the query and the document together.
        truncated: Whether tokens were cut off.
    """

    index: int
    score: float
    text: str
    tokens: int
    truncated: bool

    def to_json(self) -> dict[str, Any]:
        """Returns what the rank method of a cross-encoder returns, and how the pair was read."""
        table = {"corpus_id": self.index, "score": self.score, "text": self.text, "tokens": self.tokens}
        return {**table, "truncated": True} if self.truncated else table


def tag(
    bundle: TextCalls, texts: Iterable[str], *, aggregation: str, ignore_labels: Sequence[str], **reading: Any
) -> list[TagResult]:
    """Labels parts of texts; see :meth:`edgeq.targets.runtime.loader.Bundle.tag`."""
    _check_task(bundle, "tag")
    if aggregation not in AGGREGATIONS:
        raise UsageError(f"an aggregation is one of {', '.join(AGGREGATIONS)}, found {aggregation!r}")
    ignored = (ctypes.c_char_p * len(ignore_labels))(*(label.encode("utf-8") for label in ignore_labels))
    own = native_tasks.TagOptions(
        ctypes.sizeof(native_tasks.TagOptions), ignored, len(ignored), AGGREGATIONS.index(aggregation)
    )
    indexed = aggregation == "none"

    def entities(table: Any) -> list[Entity]:
        return [
            Entity(
                one.label.decode("utf-8"), one.score, _text(one.word, one.word_size), one.start, one.end,
                one.index if indexed else None,
            )
            for one in table.items[: table.count]
        ]  # fmt: skip

    return _results(bundle, "edgeq_tag", texts, reading, own, native_tasks.Entities, entities, TagResult)


def answer(
    bundle: TextCalls,
    pairs: Iterable[tuple[str, str]],
    *,
    top_k: int,
    max_answer_len: int,
    handle_impossible_answer: bool,
    align_to_words: bool,
    **reading: Any,
) -> list[AnswerResult]:
    """Finds answers; see :meth:`edgeq.targets.runtime.loader.Bundle.answer`."""
    _check_task(bundle, "answer")
    own = native_tasks.AnswerOptions(
        ctypes.sizeof(native_tasks.AnswerOptions), top_k, max_answer_len, handle_impossible_answer, not align_to_words
    )

    def answers(table: Any) -> list[Answer]:
        items = table.items[: table.count]
        return [Answer(one.score, one.start, one.end, _text(one.text, one.text_size)) for one in items]

    return _results(bundle, "edgeq_find_answers", pairs, reading, own, native_tasks.Answers, answers, AnswerResult)


def fill(
    bundle: TextCalls, texts: Iterable[str], *, top_k: int, targets: Sequence[str] | None, **reading: Any
) -> list[FillResult]:
    """Fills masks; see :meth:`edgeq.targets.runtime.loader.Bundle.fill`."""
    _check_task(bundle, "fill")
    if targets is not None and not targets:
        raise UsageError("at least one target is expected")
    chosen = to_texts(targets or [], "target")
    own = native_tasks.FillOptions(ctypes.sizeof(native_tasks.FillOptions), chosen.records, len(chosen.records), top_k)

    def fillings(table: Any) -> list[list[Filling]]:
        found = [
            Filling(one.score, one.token, _text(one.text, one.text_size), _text(one.sequence, one.sequence_size))
            for one in table.items[: table.masks * table.per_mask]
        ]
        return [found[start : start + table.per_mask] for start in range(0, len(found), table.per_mask)]

    return _results(bundle, "edgeq_fill", texts, reading, own, native_tasks.Fillings, fillings, FillResult)


def rank(bundle: TextCalls, query: str, documents: Iterable[str], *, top_k: int | None, **reading: Any) -> list[Ranked]:
    """Sorts documents; see :meth:`edgeq.targets.runtime.loader.Bundle.rank`."""
    _check_task(bundle, "classify")
    given = list(documents)
    if top_k is not None and top_k < 1:
        raise UsageError(f"at least one document must be asked for, found {top_k}")
    if not given:
        return []
    options = text_options(**reading)
    found, readings = bundle.session.rank(to_texts([query], "query"), to_texts(given, "document"), options)
    return [
        Ranked(index, score, given[index], readings[index].tokens, bool(readings[index].is_cut))
        for index, score in found[:top_k]
    ]


def _check_task(bundle: TextCalls, task: str) -> None:
    own = bundle.model.task
    if own != task:
        raise UsageError(f"bundle {bundle.path} is for {own!r}, not for {task!r}")


def _results(
    bundle: TextCalls,
    function: str,
    texts: Iterable[Any],
    reading: dict[str, Any],
    own: ctypes.Structure,
    table: type[ctypes.Structure],
    convert: Any,
    result: Any,
) -> list[Any]:
    results = []
    for window, options in text_windows(texts, reading):
        found = (table * len(window))()
        tables, readings = bundle.session.find(function, given_texts(window, options), options, own, found, convert)
        results += [
            result(text, one.tokens, bool(one.is_cut), one.rows, items)
            for text, one, items in zip(window, readings, tables, strict=True)
        ]
    return results


def _text(address: int, size: int) -> str:
    return ctypes.string_at(address, size).decode("utf-8") if size else ""
