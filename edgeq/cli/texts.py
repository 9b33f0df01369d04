"""Texts from files with what belongs to them: an id and other fields, which come back with each result."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from edgeq.errors import FormatError, UsageError

_COLUMNS = ("text", "sentence", "question")
_SECONDS = ("text_pair", "context")
_ID = "id"


class Result(Protocol):
    """What a model says of one text."""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""


@dataclasses.dataclass(frozen=True)
class InputText:
    """A text and what its file says of it.

    Attributes:
        text: The text, or a pair of them; empty for a blank line, which keeps its place among the results.
        id: Its id, or None where there is none.
        fields: What else its row holds.
    """

    text: str | tuple[str, str]
    id: Any = None
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)

    def joined(self, result: dict[str, Any]) -> dict[str, Any]:
        """Returns a result with the id before it and the other fields behind it."""
        before = {} if self.id is None else {_ID: self.id}
        return before | result | ({"fields": self.fields} if self.fields else {})


def read_lines(file: Path | str) -> list[InputText]:
    """Reads one text a line; see :func:`edgeq.targets.runtime.text_files.read_texts`."""
    from edgeq.targets.runtime.text_files import read_texts

    return [InputText(text) for text in read_texts(file, keep_blank=True)]


def read_json_lines(file: Path | str, column: str | None) -> list[InputText]:
    """Reads one JSON object a line.

    Args:
        file: The file; ``-`` is standard input.
        column: Key of the text; None is ``text``, ``sentence`` or ``question``. Its second, if there is one, is under
            ``text_pair`` or ``context``.

    Raises:
        UsageError: If the file cannot be read or holds no texts under that key.
        FormatError: If a line is no JSON object.
    """
    from edgeq.formats.json_file import kind_of, parse_json
    from edgeq.targets.runtime.text_files import read_input

    rows = []
    for number, line in enumerate(read_input(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number},"
        row = parse_json(line, where=where)
        if not isinstance(row, dict):
            raise FormatError(f"{where} should hold a JSON object, found {kind_of(row)}")
        rows.append((where, row))
    return _texts(rows, column, str(file))


def read_table(file: Path | str, column: str | None) -> list[InputText]:
    """Reads a CSV table with a header, or one with tabs if its name ends in ``.tsv``.

    Args:
        file: The file; ``-`` is standard input.
        column: Column of the text; None is ``text``, ``sentence`` or ``question``. Its second, if there is one, is in
            ``text_pair`` or ``context``.

    Raises:
        UsageError: If the file cannot be read or holds no such column.
        FormatError: If a row does not fit the header.
    """
    from edgeq.targets.runtime.text_files import read_input

    content = read_input(file)
    if str(file).endswith(".tsv"):
        cells = [line.rstrip("\r").split("\t") for line in content.removesuffix("\n").split("\n")]
    else:
        try:
            cells = list(csv.reader(io.StringIO(content), strict=True))
        except csv.Error as error:
            raise FormatError(f"{file} is not a CSV file: {error}") from None
    header = cells[0] if cells else []
    if twice := next((name for number, name in enumerate(header) if name in header[:number]), None):
        raise FormatError(f"{file} has two columns {twice!r}; keep one of them")
    rows = []
    for number, row in enumerate(cells[1:], start=2):
        where = f"{file}, row {number},"
        if row in ([], [""]):
            if len(header) != 1:
                continue
            row = [""]  # in a table of texts alone a blank line is a text, and keeps its place
        if len(row) != len(header):
            raise FormatError(f"{where} should have {len(header)} columns, found {len(row)}")
        rows.append((where, dict(zip(header, row, strict=True))))
    return _texts(rows, column, str(file))


def _texts(rows: list[tuple[str, dict[str, Any]]], column: str | None, file: str) -> list[InputText]:
    if not rows:
        raise UsageError(f"{file} holds no texts")
    names = [column] if column is not None else [name for name in _COLUMNS if name in rows[0][1]]
    if len(names) != 1:
        raise UsageError(
            f"{file}: name the texts by --column; there are {', '.join(rows[0][1])}"
            + ("" if not names else f", of which {' and '.join(names)} could be meant")
        )
    return [_text(row, names[0], where) for where, row in rows]


def _text(row: dict[str, Any], column: str, where: str) -> InputText:
    if column not in row:
        raise UsageError(f"{where} has no {column!r}, found {', '.join(row) or 'nothing'}")
    text = _text_of(row[column], column, where)
    second = next((name for name in _SECONDS if name in row and name != column), None)
    fields = {key: value for key, value in row.items() if key not in (column, second, _ID)}
    if not text.strip():
        return InputText("", row.get(_ID), fields)
    return InputText(text if second is None else (text, _text_of(row[second], second, where)), row.get(_ID), fields)


def _text_of(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UsageError(f"{where}: {column!r} should be a text, found {value!r}")
    return value


def join_results(inputs: Iterable[InputText], results: Iterable[Result]) -> Iterator[dict[str, Any]]:
    """Yields one JSON object for each input, in order; a blank one has no tokens and no result.

    Args:
        inputs: All texts.
        results: Those of the texts that are not blank, in order.
    """
    following = iter(results)
    for one in inputs:
        found = next(following).to_json() if one.text else {"text": "", "tokens": 0}
        yield one.joined(found)
