"""Rows of training data: from a file, or from a data set of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgeq.errors import UsageError
from edgeq.evaluate.data import read_rows, read_text_file

Split = Literal["train", "validation"]
_FILES = (".tsv", ".csv", ".jsonl", ".txt", ".text", ".raw", ".tokens")
TABLES = (".tsv", ".csv", ".jsonl")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of one data set.

    Attributes:
        source: Where they came from, for messages.
        cells: Each row's cells by column.
        places: Where each row stands, such as ``line 3``.
    """

    source: str
    cells: Sequence[dict[str, str]]
    places: Sequence[str]

    def column(self, *names: str) -> str | None:
        """Returns the first of some columns that the rows have."""
        return next((name for name in names if name in self.cells[0]), None)

    def texts(self, column: str) -> list[str]:
        """Returns a column.

        Raises:
            UsageError: If a row lacks it.
        """
        for cells, place in zip(self.cells, self.places, strict=True):
            if column not in cells:
                raise UsageError(f"{self.source}, {place}: {column!r} is missing")
        return [cells[column] for cells in self.cells]


def read_data(source: str | Path, *, split: Split) -> Rows:
    """Reads rows.

    Args:
        source: A ``.tsv``, ``.csv`` or ``.jsonl`` file; a text file, which is one row with the column ``text``;
            or a data set of the hub as ``name``, ``name:configuration`` or ``name:configuration:split``.
        split: Which part of a data set of the hub is read, where its name says none.

    Raises:
        UsageError: If the data are not there, empty or not readable.
        FormatError: If a row is damaged.
    """
    path = Path(source)
    if path.is_file() or path.suffix in _FILES:
        return _of_file(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a data file or the name of a data set")
    name = str(source)
    if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise UsageError(f"there is no data file {name!r}; its name ends in {', '.join(TABLES)} or .txt")
    return _of_hub(name, split)


def _of_file(path: Path) -> Rows:
    if path.suffix not in TABLES:
        return Rows(str(path), [{"text": read_text_file(path).content}], ["line 1"])
    rows = read_rows(path)
    return Rows(str(path), [cells for _, cells in rows], [f"line {number}" for number, _ in rows])


def _of_hub(source: str, split: Split) -> Rows:
    import datasets

    name, configuration, chosen = (*source.split(":"), "", "")[:3]
    try:
        table = datasets.load_dataset(name, configuration or None, split=chosen or split)
    except Exception as error:  # hub, HTTP clients and builders raise many unrelated classes
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{source!r} is no file, and the data set cannot be loaded from the Hugging Face hub "
            f"({type(error).__name__}: {reason}); check the name and the network, or give a file"
        ) from None
    cells = [{str(key): value if isinstance(value, str) else str(value) for key, value in row.items()} for row in table]
    if not cells:
        raise UsageError(f"{source} holds no examples")
    return Rows(source, cells, [f"row {number}" for number in range(1, len(cells) + 1)])
