"""Texts from files: one a line, or a pair a line."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeq.errors import FormatError, UsageError
from edgeq.reading import read_text

_LARGEST_INPUT = 1 << 32
"""Bytes of a file of texts, which is read whole."""


def read_texts(path: Path | str, *, keep_blank: bool = False) -> list[str]:
    """Reads a UTF-8 file with one text a line.

    Args:
        path: The file; ``-`` is standard input.
        keep_blank: Return blank lines as empty texts at their places; otherwise they are skipped.

    Raises:
        UsageError: If the file cannot be read, is not UTF-8, or holds no text.
    """
    content = read_input(path)
    # Not splitlines(): a text may hold exotic separators, such as U+2028.
    lines = [line.strip("\r") for line in content.removesuffix("\n").split("\n")]
    texts = [line if line.strip() else "" for line in lines]
    if not any(texts):
        raise UsageError(f"{path} holds no text; give one text per line")
    return texts if keep_blank else [text for text in texts if text]


def read_input(path: Path | str) -> str:
    """Returns a UTF-8 text from a file, or from standard input if the name is ``-``.

    Raises:
        UsageError: If it cannot be read, or is not UTF-8.
    """
    try:
        if str(path) != "-":
            return read_text(Path(path), largest=_LARGEST_INPUT, encoding="utf-8-sig")
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: byte {error.start} cannot be read; convert it") from None
    except FormatError as error:
        raise UsageError(str(error)) from None


def read_pairs(path: Path | str) -> list[tuple[str, str]]:
    """Reads a UTF-8 file with two texts a line and one tab between them.

    Raises:
        UsageError: If the file cannot be read, is not UTF-8, holds nothing, or a line is no pair.
    """
    pairs = []
    for number, line in enumerate(read_texts(path), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise UsageError(f"{path}, pair {number}: expected two texts and one tab between them, found {line[:60]!r}")
        pairs.append((cells[0], cells[1]))
    return pairs
