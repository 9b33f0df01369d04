"""Reads evaluation data: sentence pairs with a score, sentences with a label, or plain text."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Literal

from edgeq.errors import FormatError, UsageError

DataKind = Literal["similarity", "classification"]
_SIMILARITY_COLUMNS = ("sentence1", "sentence2", "score")
_LABEL_COLUMNS = ("sentence", "label")
_MAX_PROBLEM_TEXT = 60


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
class EvaluationSet:
    """An evaluation set.

    Attributes:
        path: Where it came from.
        kind: ``similarity`` (targets are scores) or ``classification`` (targets are labels).
        examples: Its rows, in the order of the file.
    """

    path: Path
    kind: DataKind
    examples: list[Example]


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

    Columns are ``sentence1``, ``sentence2`` and ``score`` (GLUE's STS-B files are of this form), or
    ``sentence`` and ``label`` (SST-2); pairs with ``label`` work as well. Other columns are ignored.

    Args:
        path: The file.
        limit: Read no more than this many examples.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or has other columns.
        FormatError: If a row cannot be read.
    """
    path = Path(path)
    rows = read_rows(path)
    kind = _kind(path, rows[0][1])
    examples = [_example(path, number, row, kind) for number, row in rows[:limit]]
    return EvaluationSet(path, kind, examples)


def read_rows(path: Path | str) -> list[tuple[int, dict[str, str]]]:
    """Reads the rows of a ``.tsv``, ``.csv`` or ``.jsonl`` file.

    Returns:
        For each row the number of its line, and its cells by the column's header.

    Raises:
        UsageError: If the file is missing, empty, not UTF-8, or of another kind.
        FormatError: If a row cannot be read.
    """
    path = Path(path)
    text = _read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty; it should hold examples")
    if path.suffix == ".jsonl":
        rows = _json_rows(path, text)
    elif path.suffix in (".tsv", ".csv"):
        rows = _table_rows(path, text)
    else:
        raise UsageError(f"{path}: the name of a file of examples ends in .tsv, .csv or .jsonl")
    if not rows:
        raise UsageError(f"{path} holds no examples")
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"data file {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: byte {error.start} cannot be read; convert it first"
        ) from None
    except OSError as error:
        raise UsageError(f"data file {path} cannot be read: {error.strerror}") from None


def _table_rows(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """Splits a table; tab-separated files hold quotation marks that mean themselves, as GLUE's do."""
    if path.suffix == ".tsv":
        # Not splitlines(): sentences may hold characters, such as U+2028, that it takes for line ends.
        cells = [line.rstrip("\r").split("\t") for line in text.split("\n")]
    else:
        try:
            cells = list(csv.reader(io.StringIO(text), strict=True))
        except csv.Error as error:
            raise FormatError(f"{path} is not a CSV file: {error}") from None
    header = cells[0]
    rows = []
    for number, row in enumerate(cells[1:], start=2):
        if not any(row):
            continue
        if len(row) < len(header):
            raise FormatError(f"{path}, line {number}: expected {len(header)} columns, found {len(row)}")
        # The STS benchmark appends columns without a name, such as where a sentence is from, to some rows.
        rows.append((number, dict(zip(header, row, strict=False))))
    return rows


def _json_rows(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise FormatError(
                f"{path}, line {number}: expected a JSON object, found {line[:_MAX_PROBLEM_TEXT]!r}"
            )
        rows.append((number, {str(key): _as_text(value) for key, value in row.items()}))
    return rows


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(path: Path, row: dict[str, str]) -> DataKind:
    if all(name in row for name in _SIMILARITY_COLUMNS):
        return "similarity"
    if "label" in row and ("sentence" in row or "sentence1" in row):
        return "classification"
    raise UsageError(
        f"{path} should have columns {', '.join(_SIMILARITY_COLUMNS)} or {', '.join(_LABEL_COLUMNS)}, "
        f"found {', '.join(row)}"
    )


def _example(path: Path, number: int, row: dict[str, str], kind: DataKind) -> Example:
    try:
        if kind == "classification":
            first = row["sentence"] if "sentence" in row else row["sentence1"]
            return Example(first, row.get("sentence2"), row["label"])
        score = float(row["score"])
        if not math.isfinite(score):
            raise ValueError
        return Example(row["sentence1"], row["sentence2"], score)
    except KeyError as error:
        raise FormatError(f"{path}, line {number}: {error.args[0]!r} is missing") from None
    except ValueError:
        raise FormatError(f"{path}, line {number}: a score is a number, found {row['score']!r}") from None
