"""Output: tables and results to stdout, progress to stderr."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import rich.box
import rich.console
import rich.progress
import rich.table

from edgeq.errors import printable
from edgeq.json_text import json_text
from edgeq.progress import Progress, silent

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OBEYED = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters and marks of direction that JSON does not escape by itself."""


def print_json(value: Any) -> None:
    """Prints one JSON document; numbers that JSON lacks (infinities, NaN) become null."""
    sys.stdout.write(_json(value, indent=2) + "\n")


def print_json_line(value: Any) -> None:
    """Prints one line of JSON lines."""
    sys.stdout.write(_json(value) + "\n")


def _json(value: Any, *, indent: int | None = None) -> str:
    r"""JSON with letters of all scripts as they are, and what a terminal would obey as ``\u`` and digits."""
    text = json_text(value, indent=indent, ascii_only=False)
    return _OBEYED.sub(lambda found: json.dumps(found.group())[1:-1], text)


def say(text: str) -> None:
    """Prints a line of plain text to stdout; what a terminal would obey is escaped."""
    sys.stdout.write(printable(text) + "\n")


def write_texts(*texts: str) -> None:
    """Writes texts that a model read or made to stdout as they come, line ends included, but no control characters."""
    for text in texts:
        sys.stdout.write(_CONTROL.sub(lambda found: ascii(found.group())[1:-1], text))
    sys.stdout.flush()


def note(text: str) -> None:
    """Prints a line of plain text to stderr, for what is not the result; what a terminal would obey is escaped."""
    sys.stderr.write(printable(text) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Prints a table; the first column is aligned left, a column of numbers right."""
    table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = index > 0 and all(_is_number(row[index]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Cells are data, not markup: a layer named "[0]" must come out as it is.
        table.add_row(*(rich.text.Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    # Piped output is not cut to a width that nobody has.
    width = None if sys.stdout.isatty() else 200
    rich.console.Console(file=sys.stdout, width=width, highlight=False).print(table)


def _is_number(cell: str) -> bool:
    return not cell or cell[0] in "+-0123456789" or cell in ("nan", "-")


@contextlib.contextmanager
def progress_bars(*, enabled: bool = True) -> Iterator[Progress]:
    """Yields a :data:`~edgeq.progress.Progress` that draws a bar for each kind of work on stderr.

    Where stderr is not a terminal, one line is printed when a kind of work is complete.
    """
    if not enabled:
        yield silent
        return
    if not sys.stderr.isatty():
        finished: set[str] = set()

        def print_when_complete(what: str, done: int, total: int) -> None:
            if done >= total and what not in finished:
                finished.add(what)
                note(f"{what}: done")

        yield print_when_complete
        return
    with rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
    ) as bars:
        tasks: dict[str, rich.progress.TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield update
