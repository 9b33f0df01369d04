"""The log of a training: JSON lines, which a resumed training goes on with."""

from __future__ import annotations

import json
from pathlib import Path

from edgeq.files import write_text
from edgeq.json_text import json_text
from edgeq.reading import read_text
from edgeq.results import LogLine


class RunLog:
    """Appends lines to a file.

    Args:
        file: The log.
        step: Last step that the training has done; lines of later ones, which will be written again, are dropped.
        active: Whether this process writes; of several, one does.
    """

    def __init__(self, file: Path, *, step: int, active: bool = True) -> None:
        self._file = file
        self._active = active
        if active and file.exists():
            kept = [line for line in read_text(file).split("\n") if _is_of(line, step)]
            write_text(file, "".join(line + "\n" for line in kept))

    def write(self, line: LogLine) -> None:
        """Appends one line."""
        if not self._active:
            return
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json_text(line.to_json()) + "\n")


def _is_of(line: str, step: int) -> bool:
    """Tells whether a line is whole and of a step that has been done; a killed training may leave half a line."""
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
