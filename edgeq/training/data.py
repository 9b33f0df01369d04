"""Training data of a task: rows become tokenised examples."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.distill.labels import NO_LABEL
from edgeq.errors import UsageError
from edgeq.evaluate.columns import LABELS, SCORES, find_columns
from edgeq.evaluate.data import read_rows
from edgeq.evaluate.ranking import is_ranking
from edgeq.models import DecoderClassifierAdapter, ModelAdapter
from edgeq.training.examples import ExampleSet, Similarities
from edgeq.training.kinds import KINDS, Kind, Reading, existing_file
from edgeq.training.rows import TABLES, Rows, Split, read_data
from edgeq.training.settings import TaskName

SOURCES = (("source", "target"), ("document", "summary"), ("article", "highlights"), ("text", "summary"))
"""Columns of a text and of what is to be written."""
_TASKS: dict[str, tuple[TaskName, ...]] = {
    "classify": ("classification", "regression", "ranking"),
    "embed": ("embedding",),
    "tag": ("tags",),
    "answer": ("answers",),
    "fill": ("masked-words",),
    "generate": ("language-model",),
    "seq2seq": ("seq2seq",),
}
"""What models of each task are trained for, the usual first."""


@dataclasses.dataclass(frozen=True)
class TaskData:
    """What a student is trained on.

    Attributes:
        task: What the model learns.
        train: Examples to train on.
        evaluation: Held-out examples; None where there are none.
        augmented: More examples, for the stages that use them; numbered on after those of ``train``.
        pretraining: Texts without labels of the task, for the stages that pre-train.
    """

    task: TaskName
    train: ExampleSet
    evaluation: ExampleSet | None = None
    augmented: ExampleSet | None = None
    pretraining: ExampleSet | None = None


def task_of(adapter: ModelAdapter) -> TaskName:
    """Returns the task of a model; a classifier with one label is trained for regression, where nothing says more."""
    if adapter.task == "classify":
        return "regression" if len(adapter.labels) == 1 else "classification"
    return _TASKS[adapter.task][0]


def load_task_data(
    train: str | Path,
    evaluation: str | Path | None,
    *,
    tokenizer: Any,
    adapter: ModelAdapter,
    max_length: int,
    task: TaskName | None = None,
) -> TaskData:
    """Reads and tokenises training data.

    Columns are known by their names: for labels, scores and embeddings those of :mod:`edgeq.evaluate.columns`;
    ``text`` for language models; ``source`` and ``target`` (or ``document`` and ``summary``, ...) for
    sequence-to-sequence, where a JSON list is the sentences of an encoder input, or targets, of which the first is
        learned.

    Args:
        train: A file or a data set of the hub; see :func:`edgeq.training.rows.read_data`.
        evaluation: The same for held-out data; None for none.
        tokenizer: The model's tokenizer.
        adapter: The model's adapter.
        max_length: Tokens of an example, or of a block of a language model; longer texts are cut.
        task: What is asked for; None is what the model is made for.

    Raises:
        UsageError: If the task does not fit the model, or data are missing, empty, have other columns or labels
            that the model does not know.
        FormatError: If a row is damaged.
    """
    task = _checked_task(task, adapter, _ranks(train))
    check_padding(adapter, tokenizer)
    if not 1 < max_length <= adapter.max_positions:
        raise UsageError(
            f"max_length should be 2 to {adapter.max_positions}, the model's positions, found {max_length}"
        )
    if (kind := KINDS.get(task)) is not None:
        return _of_kind(kind, task, train, evaluation, Reading(tokenizer, adapter, max_length, "train"))
    encoder = _Encoder(tokenizer, adapter, max_length, task)
    held_out = None if evaluation is None else encoder.examples(evaluation, "validation")
    return TaskData(task, encoder.examples(train, "train"), held_out)


def _of_kind(
    kind: Kind, task: TaskName, train: str | Path, evaluation: str | Path | None, reading: Reading
) -> TaskData:
    held_out = None
    if evaluation is not None:
        held_out = kind.examples(
            existing_file(evaluation, "data of this task"), dataclasses.replace(reading, split="validation")
        )
    return TaskData(task, kind.examples(existing_file(train, "data of this task"), reading), held_out)


def _ranks(source: str | Path) -> bool:
    """Tells whether data are queries with documents."""
    path = Path(source)
    return path.suffix in TABLES and path.is_file() and is_ranking(list(read_rows(path)[0][1]))


def check_padding(adapter: ModelAdapter, tokenizer: Any) -> None:
    """Refuses a decoder that labels texts and would look for their ends in vain.

    Raises:
        UsageError: If its configuration names no padding token, or another one than the tokenizer.
    """
    if not isinstance(adapter, DecoderClassifierAdapter):
        return
    own, other = adapter.config.pad_token_id, tokenizer.pad_token_id
    if own is None or own != other:
        raise UsageError(
            f"{adapter.architecture} labels a text at its last token that is not padding, so config.json must name the "
            f"padding token of the tokenizer; pad_token_id is {own}, the tokenizer's {other}"
        )


def encode_rows(
    rows: Rows, *, tokenizer: Any, adapter: ModelAdapter, max_length: int, task: TaskName, first: int = 0
) -> ExampleSet:
    """Tokenises rows that were made otherwise, such as augmented ones.

    Args:
        rows: The rows.
        tokenizer: The model's tokenizer.
        adapter: The model's adapter.
        max_length: Tokens of an example.
        task: What the model learns.
        first: Number of the first of them; for augmented examples, how many there are to train on.

    Raises:
        UsageError: See :func:`load_task_data`.
    """
    if task in KINDS:
        raise UsageError(f"more examples are made of sentences by replacing words, which does not fit the task {task}")
    examples = _Encoder(tokenizer, adapter, max_length, task).encoded(rows, "train")
    return dataclasses.replace(examples, first=first)


def load_pretraining_texts(
    source: str | Path, *, tokenizer: Any, adapter: ModelAdapter, max_length: int, first: int = 0
) -> ExampleSet:
    """Reads and tokenises texts to pre-train on: lines for an encoder, blocks of tokens for a language model.

    Args:
        source: A file or a data set of the hub, with a column of texts; see :func:`edgeq.training.rows.read_data`.
        tokenizer: The model's tokenizer.
        adapter: The model's adapter.
        max_length: Tokens of an example, or of a block; longer lines are cut.
        first: Number of the first of them: how many examples the task has.

    Raises:
        UsageError: If the model is an encoder-decoder, or the data are missing, empty, or without texts.
        FormatError: If a row is damaged.
    """
    if adapter.task == "seq2seq":
        raise UsageError(f"{source}: pre-training on texts is for BERT and GPT-2, found {adapter.architecture}")
    task: TaskName = "language-model" if adapter.task == "generate" else "embedding"
    examples = _Encoder(tokenizer, adapter, max_length, task).examples(source, "train")
    return dataclasses.replace(examples, first=first)


def _checked_task(task: TaskName | None, adapter: ModelAdapter, ranks: bool) -> TaskName:
    own = task_of(adapter)
    if own == "regression" and (task == "ranking" or (task is None and ranks)):
        return "ranking"
    if task is None or task == own:
        return own
    if task not in _TASKS[adapter.task]:
        raise UsageError(f"a {adapter.architecture} is trained for {own}, not for {task}")
    raise UsageError(
        f"the task {task} does not fit a model with {len(adapter.labels)} labels; regression has 1, "
        "classification 2 or more"
    )


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """Turns rows into examples of one task."""

    tokenizer: Any
    adapter: ModelAdapter
    max_length: int
    task: TaskName

    def examples(self, source: str | Path, split: Split) -> ExampleSet:
        return self.encoded(read_data(source, split=split), split)

    def encoded(self, rows: Rows, split: Split) -> ExampleSet:
        if self.task == "language-model":
            return self._blocks(rows, split)
        if self.task == "seq2seq":
            return self._translations(rows)
        if self.task == "embedding":
            return self._sentences(rows, split)
        return self._labelled(rows)

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def _tokens(
        self, first: list[str], second: list[str] | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        encoded = self.tokenizer(
            first, second, truncation=True, max_length=self.max_length, return_token_type_ids=True
        )
        keys = ("input_ids", "token_type_ids")
        ids, types = ([np.array(row, np.int32) for row in encoded[key]] for key in keys)
        return ids, types if "token_type_ids" in self.adapter.input_names else None

    def _labelled(self, rows: Rows) -> ExampleSet:
        targets = LABELS if self.task == "classification" else (*SCORES, *LABELS)
        columns = find_columns(rows.cells[0], rows.source, targets=targets)
        if columns.target is None:
            raise _columns_error(rows, f"sentence (or a pair of sentences) and {targets[0]}")
        second = None if columns.second is None else rows.texts(columns.second)
        ids, types = self._tokens(rows.texts(columns.first), second)
        answers = list(zip(rows.texts(columns.target), rows.places, strict=True))
        if self.task == "regression":
            values = np.array([_number(rows.source, *answer) for answer in answers], np.float32)
            return ExampleSet(ids, self._pad, types, values)
        known = self.adapter.labels
        numbers = np.array([_label(rows.source, *answer, known) for answer in answers], np.int64)
        return ExampleSet(ids, self._pad, types, numbers)

    def _sentences(self, rows: Rows, split: Split) -> ExampleSet:
        found = find_columns(rows.cells[0], rows.source)
        columns = [rows.texts(name) for name in found.texts]
        if found.texts == ("text",) and len(rows.cells) == 1:  # a plain text: each of its lines is a sentence
            columns = [[line for line in columns[0][0].split("\n") if line.strip()]]
        texts = sorted({one for column in columns for one in column})
        similarities = None
        if found.second is not None and split == "validation" and found.target is not None:
            place = {one: number for number, one in enumerate(texts)}
            pairs = np.array([[place[one] for one in column] for column in columns], np.int64).T
            graded = zip(rows.texts(found.target), rows.places, strict=True)
            scores = np.array([_number(rows.source, *answer) for answer in graded])
            similarities = Similarities(pairs, scores)
        ids, types = self._tokens(texts)
        return ExampleSet(ids, self._pad, types, similarities=similarities)

    def _translations(self, rows: Rows) -> ExampleSet:
        pair = next((pair for pair in SOURCES if all(rows.column(name) for name in pair)), None)
        if pair is None:
            raise _columns_error(rows, "source and target")
        sources = [" ".join(alternatives(text)) for text in rows.texts(pair[0])]
        ids, _ = self._tokens(sources)
        targets, _ = self._tokens([alternatives(text)[0] for text in rows.texts(pair[1])])
        start = int(self.adapter.config.decoder_start_token_id)
        return ExampleSet(ids, self._pad, labels=targets, decoder_start=start)

    def _blocks(self, rows: Rows, split: Split) -> ExampleSet:
        column = rows.column("text", "sentence", "document")
        if column is None:
            raise _columns_error(rows, "text")
        stream = self._stream(rows.texts(column), rows.source)
        length = min(self.max_length, len(stream) - 1)
        starts = range(0, len(stream) - length, length)
        inputs = [stream[start : start + length] for start in starts]
        labels = [stream[start + 1 : start + 1 + length] for start in starts]
        left = (len(stream) - 1) % length
        if split == "validation" and left:
            # The last window ends with the text and predicts what the others have not, as edgeq.evaluate.perplexity
            # does.
            inputs.append(stream[-length - 1 : -1])
            labels.append(np.concatenate([np.full(length - left, NO_LABEL, np.int32), stream[-left:]]))
        return ExampleSet(inputs, self._pad, labels=labels)

    def _stream(self, texts: list[str], source: str) -> np.ndarray:
        """Returns all texts in one array, each behind the token that begins (or ends) a text."""
        first = self.tokenizer.bos_token_id
        separator = first if first is not None else self.tokenizer.eos_token_id
        front = [] if separator is None else [separator]
        # "verbose" would warn that a text is longer than the model's positions, which blocks are there for.
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        stream = np.concatenate([np.array([*front, *ids], np.int32) for ids in encoded])
        if len(stream) < 2:
            raise UsageError(f"{source} is too short: a language model needs a token to read and one to predict")
        return stream


def alternatives(cell: str) -> list[str]:
    """Reads a cell that may be a JSON list of texts: the sentences of an encoder input, or several good targets."""
    if cell.startswith("["):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            values = json.loads(cell)
            if values and isinstance(values, list) and all(isinstance(value, str) for value in values):
                return values
    return [cell]


def _columns_error(rows: Rows, wanted: str) -> UsageError:
    return UsageError(f"{rows.source} should have columns {wanted}, found {', '.join(rows.cells[0])}")


def _label(source: str, answer: str, place: str, labels: list[str]) -> int:
    """Rows name a label, or give its number."""
    if answer in labels:
        return labels.index(answer)
    if answer.isascii() and answer.isdigit() and int(answer) < len(labels):
        return int(answer)
    raise UsageError(
        f"{source}, {place}: label {answer!r} is none of the model's {len(labels)} labels ({', '.join(labels)})"
    )


def _number(source: str, answer: str, place: str) -> float:
    try:
        value = float(answer)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{source}, {place}: a score is a number, found {answer!r}")
    return value
