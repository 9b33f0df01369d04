"""Questions with a context: exact match and F1 of answers, by the definition of SQuAD's script."""

from __future__ import annotations

import collections
import dataclasses
import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.batches import Batches
from edgeq.evaluate.data import read_examples_file
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning
from edgeq.evaluate.spans import Window, best_span, windows_of
from edgeq.formats.json_file import parse_json

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_KEYS = frozenset(("id", "title", "question", "context", "answers", "is_impossible", "plausible_answers"))
_LONGEST_CONTEXT = 1 << 24
"""Characters; a place in a context has these many bits."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        question: Its text.
        context: The text that holds the answer.
        answers: Texts of which each is right; none where the context has no answer.
        starts: Where each begins in the context, or -1 where the file does not say.
        place: Where it stands, such as ``question 3``.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    place: str


@dataclasses.dataclass(frozen=True)
class Questions(EvaluationData):
    """Questions on contexts.

    Attributes:
        path: Where they came from.
        examples: The questions.
    """

    path: Path
    examples: list[Question]

    @property
    def some_have_none(self) -> bool:
        """Whether there are questions without an answer, so that a model may give none (SQuAD 2)."""
        return any(not question.answers for question in self.examples)

    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """Returns the mean F1 of the answers' words, and the share of exact answers beside it."""
        del meaning
        windows = [self._windows(run, question) for question in self.examples]

        def read(_: int, outputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            if "start_logits" not in outputs:
                raise UsageError(f"{self.path} holds questions, which need a model that answers questions")
            return outputs["start_logits"], outputs["end_logits"]

        logits = iter(run.of_tokens([window.tokens for parts in windows for window in parts], read))
        rows, decisions = [], []
        for question, parts in zip(self.examples, windows, strict=True):
            own = [next(logits) for _ in parts]
            span = best_span(question.context, parts, own, may_be_none=self.some_have_none)
            rows.append(grade(span.text, question.answers))
            decisions.append(span.start * _LONGEST_CONTEXT + span.end)
        table = np.array(rows, np.float64)
        others = {"exact match": float(table[:, 1].mean())}
        return Evaluation("answer-f1", table, np.array(decisions, np.int64), others)

    def _windows(self, run: Batches, question: Question) -> list[Window]:
        if not getattr(run.tokenizer, "is_fast", False):
            raise UsageError(
                f"{type(run.tokenizer).__name__} does not say where its tokens stand in a text, which answers need; "
                "give the model a tokenizer.json"
            )
        if len(run.tokenizer(question.question)["input_ids"]) > min(run.max_length, 384) // 2:
            raise UsageError(
                f"{self.path}, {question.place}: the question leaves no place for its context in the {run.max_length} "
                "tokens that the model reads"
            )
        return windows_of(run.tokenizer, question.question, question.context, max_length=run.max_length)


def grade(found: str, answers: Sequence[str]) -> tuple[float, float]:
    """Returns F1 and exact match of an answer: each the best over all right ones (Rajpurkar et al., 2016 and 2018).

    Args:
        found: The answer; empty for none.
        answers: The right ones; none where there is no answer.
    """
    # As SQuAD's script has it: right answers of nothing but articles and punctuation are dropped first.
    right = [answer for answer in answers if _words(answer)] or [""]
    pairs = [(_f1(_words(found), _words(answer)), float(_words(found) == _words(answer))) for answer in right]
    return max(f1 for f1, _ in pairs), max(exact for _, exact in pairs)


def _words(text: str) -> list[str]:
    letters = "".join(letter for letter in text.lower() if letter not in _PUNCTUATION)
    return _ARTICLES.sub(" ", letters).split()


def _f1(found: list[str], right: list[str]) -> float:
    if not found or not right:
        return float(found == right)
    common = sum((collections.Counter(found) & collections.Counter(right)).values())
    return 2 * common / (len(found) + len(right))


def read_questions(path: Path | str, *, limit: int | None = None) -> Questions:
    """Reads questions with their contexts and answers.

    Args:
        path: A ``.json`` file as SQuAD 1.1 and 2.0 are published; or a ``.jsonl`` file with ``question``, ``context``
            and ``answers`` in each line: a list of texts, or an object of the lists ``text`` and ``answer_start``.
        limit: Read no more than this many questions.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or has no answers.
        FormatError: If a question cannot be read.
    """
    path = Path(path)
    content = read_examples_file(path)
    if path.suffix == ".jsonl":
        read = _of_lines(path, content)
    elif path.suffix == ".json":
        read = _of_squad(path, parse_json(content, where=str(path)))
    else:
        raise UsageError(f"{path}: the name of a file of questions ends in .json (as SQuAD's) or .jsonl")
    examples = [question for question, _ in zip(read, range(limit if limit is not None else 1 << 62), strict=False)]
    if not examples:
        raise UsageError(f"{path} holds no questions")
    return Questions(path, examples)


def _of_lines(path: Path, content: str) -> Iterator[Question]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        row = parse_json(line, where=f"{path}, {place},")
        if not isinstance(row, dict):
            raise FormatError(f"{path}, {place}: expected a JSON object, found {line[:60]!r}")
        yield _question(path, place, row, row.get("context"))


def _of_squad(path: Path, table: Any) -> Iterator[Question]:
    try:
        number = 0
        for article in table["data"]:
            for paragraph in article["paragraphs"]:
                for row in paragraph["qas"]:
                    number += 1
                    yield _question(path, f"question {number}", row, paragraph["context"])
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is not as SQuAD's files are (data, paragraphs, qas): {type(error).__name__} {error}"
        ) from None


def _question(path: Path, place: str, row: dict[str, Any], context: Any) -> Question:
    where = f"{path}, {place}"
    if strange := sorted(row.keys() - _KEYS):
        raise FormatError(f"{where}: nothing says what {strange[0]!r} is for; known are {', '.join(sorted(_KEYS))}")
    texts = (row.get("question"), context)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise FormatError(f"{where}: 'question' and 'context' should be texts, found {texts!r:.80}")
    if len(str(context)) >= _LONGEST_CONTEXT:
        raise FormatError(f"{where}: the context should have less than {_LONGEST_CONTEXT} characters")
    if "answers" not in row:
        raise UsageError(f"{where}: there are no 'answers'; a list of none says that the context has no answer")
    found = _answers(row["answers"], where)
    if row.get("is_impossible") is True and found:
        raise FormatError(f"{where}: it is impossible to answer, and has answers")
    for text, start in found:
        if start >= 0 and not str(context).startswith(text, start):
            raise FormatError(f"{where}: the context has no {text[:40]!r} at character {start}")
    answers, starts = tuple(text for text, _ in found), tuple(start for _, start in found)
    return Question(str(texts[0]), str(context), answers, starts, place)


def _answers(given: Any, where: str) -> list[tuple[str, int]]:
    """Reads answers in any of their forms, as texts with the places where they begin."""
    if isinstance(given, dict) and set(given) <= {"text", "answer_start"} and isinstance(given.get("text"), list):
        starts = given.get("answer_start", [-1] * len(given["text"]))
        if not isinstance(starts, list) or len(starts) != len(given["text"]):
            raise FormatError(f"{where}: 'answers' should have as many starts as texts")
        given = [{"text": text, "answer_start": start} for text, start in zip(given["text"], starts, strict=True)]
    if not isinstance(given, list):
        raise FormatError(f"{where}: 'answers' should be a list, found {given!r:.60}")
    found = []
    for one in given:
        text, start = (one.get("text"), one.get("answer_start", -1)) if isinstance(one, dict) else (one, -1)
        if not isinstance(text, str) or not text or type(start) is not int or start < -1:
            raise FormatError(f"{where}: an answer should be a text with the place where it begins, found {one!r:.60}")
        found.append((text, start))
    return found
