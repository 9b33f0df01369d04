"""Reads evaluation data: sentence pairs with a score, sentences with a label, or plain text."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.batches import Batches
from edgeq.evaluate.columns import SCORES, Columns, find_columns
from edgeq.evaluate.evaluation import Evaluation, EvaluationData, Meaning
from edgeq.evaluate.labels import measure_accuracy
from edgeq.evaluate.similarity import measure_similarity
from edgeq.formats.json_file import parse_json
from edgeq.reading import read_bytes

DataKind = Literal["similarity", "classification"]
_MAX_PROBLEM_TEXT = 60
_LARGEST = 1 << 32
"""Bytes of a data file, which is read whole."""
_COLA = ("source", "label", "original", "sentence")
_STS = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2", "source1", "source2")
"""Columns of tables that have no header: GLUE's CoLA, and the STS benchmark as its authors publish it."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of an evaluation set.

    Attributes:
        first: The sentence, or the first of a pair.
        second: The second sentence of a pair, or None.
        target: A similarity score, or a label as it stands in the file.
    """

    first: str
    second: str | None
    target: float | str


@dataclasses.dataclass(frozen=True)
class EvaluationSet(EvaluationData):
    """Texts or pairs of texts with an answer.

    Attributes:
        path: Where it came from.
        kind: ``similarity`` (targets are scores) or ``classification`` (targets are labels).
        examples: Its rows, in the order of the file.
    """

    path: Path
    kind: DataKind
    examples: list[Example]

    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """See :meth:`EvaluationData.measure`."""
        measure = measure_similarity if self.kind == "similarity" else measure_accuracy
        return measure(run, self, meaning)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A text for a language model.

    Attributes:
        path: Where it came from.
        content: All of it.
    """

    path: Path
    content: str


def read_text_file(path: Path | str) -> TextFile:
    """Reads a UTF-8 text.

    Raises:
        UsageError: If the file is missing, empty or not UTF-8.
    """
    path = Path(path)
    content = _read_text(path)
    if not content.strip():
        raise UsageError(f"{path} is empty; it should hold a text")
    return TextFile(path, content)


def read_evaluation_set(path: Path | str, *, limit: int | None = None) -> EvaluationSet:
    """Reads a ``.tsv``, ``.csv`` or ``.jsonl`` file; a column's header, not its place, says what it is.

    All files of GLUE are read as they are published (CoLA, which has no header, by its form), and so is the STS
    benchmark. What the columns may be called is in :mod:`edgeq.evaluate.columns`.

    Args:
        path: The file.
        limit: Read no more than this many examples.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, without answers, or has columns that nothing explains.
        FormatError: If a row cannot be read.
    """
    path = Path(path)
    rows = read_rows(path)
    columns = find_columns(rows[0][1], str(path))
    if columns.target is None:
        raise UsageError(
            f"{path} holds no answers (a column score or label): it is the test part of its data set, whose answers "
            f"are kept back, or misses a column; found {', '.join(rows[0][1])}"
        )
    kind: DataKind = "classification"
    if columns.target in SCORES:
        kind = "similarity"
        if columns.second is None:
            raise UsageError(f"{path} grades single texts ({columns.first}); a score is for a pair of texts")
    examples = [_example(path, number, row, columns, kind) for number, row in rows[:limit]]
    return EvaluationSet(path, kind, examples)


def read_rows(path: Path | str) -> list[tuple[int, dict[str, str]]]:
    """Reads the rows of a ``.tsv``, ``.csv`` or ``.jsonl`` file.

    Returns:
        For each row the number of its line, and its cells by the column's header.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or of another kind.
        FormatError: If a row cannot be read, or has other columns than the first.
    """
    path = Path(path)
    text = read_examples_file(path)
    if path.suffix == ".jsonl":
        rows = _json_rows(path, text)
    elif path.suffix in (".tsv", ".csv"):
        rows = _table_rows(path, text)
    else:
        raise UsageError(f"{path}: the name of a file of examples ends in .tsv, .csv or .jsonl")
    if not rows:
        raise UsageError(f"{path} holds no examples")
    return rows


def read_examples_file(path: Path) -> str:
    """Returns the text of a file of examples.

    Raises:
        UsageError: If it is missing, empty or not UTF-8.
    """
    text = _read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty; it should hold examples")
    return text


def _read_text(path: Path) -> str:
    try:
        return read_bytes(path, largest=_LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: byte {error.start} cannot be read; convert it first"
        ) from None
    except FormatError as error:
        raise UsageError(str(error)) from None


def _table_rows(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """Splits a table; tab-separated files hold quotation marks that mean themselves, as GLUE's do."""
    if path.suffix == ".tsv" or text.partition("\n")[0].count("\t") >= len(_COLA):  # the STS benchmark ends in .csv
        # Not splitlines(): sentences may hold characters, such as U+2028, that it takes for line ends.
        cells = [line.rstrip("\r").split("\t") for line in text.split("\n")]
    else:
        try:
            cells = list(csv.reader(io.StringIO(text), strict=True))
        except csv.Error as error:
            raise FormatError(f"{path} is not a CSV file: {error}") from None
    header = _columns_without_header(cells[0])
    if header is not None:
        return _named_rows(path, enumerate(cells, start=1), header, optional=2 if header is _STS else 0)
    header = tuple(cells[0])
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FormatError(f"{path} has two columns {twice!r}; keep one of them")
    return _named_rows(path, enumerate(cells[1:], start=2), header)


def _columns_without_header(first: list[str]) -> tuple[str, ...] | None:
    """Recognises the tables that begin with an example."""
    if len(first) == len(_COLA) and first[1] in ("0", "1") and first[2] in ("", "*"):
        return _COLA
    if len(first) in (len(_STS) - 2, len(_STS)) and first[0].startswith("main-") and _is_number(first[4]):
        return _STS
    return None


def _named_rows(
    path: Path, cells: Iterable[tuple[int, list[str]]], header: tuple[str, ...], *, optional: int = 0
) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, row in cells:
        if not any(row):
            continue
        if not len(header) - optional <= len(row) <= len(header):
            # A tab or comma inside a text would move all that follows into other columns.
            raise FormatError(f"{path}, line {number}: expected {len(header)} columns, found {len(row)}")
        named = dict(zip(header, row, strict=False))
        if header is _COLA:
            named = {key: named[key] for key in ("sentence", "label")}
        rows.append((number, named))
    return rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _json_rows(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    rows: list[tuple[int, dict[str, str]]] = []
    known: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, where=f"{path}, line {number},")
        if not isinstance(row, dict):
            raise FormatError(
                f"{path}, line {number}: expected a JSON object, found {line[:_MAX_PROBLEM_TEXT]!r}"
            )
        known = known or set(row)
        if new := sorted(row.keys() - known):
            raise FormatError(f"{path}, line {number}: {new[0]!r} is not in the first row; give all rows the same keys")
        rows.append((number, {key: _as_text(value) for key, value in row.items() if value is not None}))
    return rows


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _example(path: Path, number: int, row: dict[str, str], columns: Columns, kind: DataKind) -> Example:
    for name in (*columns.texts, columns.target):
        if name not in row:
            raise FormatError(f"{path}, line {number}: {name!r} is missing")
    texts = [row[name] for name in columns.texts]
    first, second = texts[0], texts[1] if len(texts) > 1 else None
    answer = row[str(columns.target)]
    if kind == "classification":
        return Example(first, second, answer)
    if not _is_number(answer):
        raise FormatError(f"{path}, line {number}: a score is a number, found {answer!r}")
    return Example(first, second, float(answer))
