"""The corpus that a vocabulary is pruned for: its lines, its blocks, and how often they need each token."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.reading import read_text

_BLOCK = 64
"""Lines of a block: language models read texts of many lines, whose line breaks are tokens too."""
_AT_A_TIME = 512
_LARGEST = 1 << 32


class Corpus:
    """A text file.

    Args:
        path: The file.

    Raises:
        UsageError: If there is no such file, or there is no text in it.
        FormatError: If it is no UTF-8 text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = read_text(path, largest=_LARGEST)
        except UsageError as error:
            raise UsageError(f"vocabulary.keep: {error}") from None
        self._lines = text.splitlines(keepends=True)
        if not text.strip():
            raise UsageError(f"vocabulary.keep: {path} holds no text; give one like those that the model will read")

    def lines(self) -> Iterator[str]:
        """Yields the lines that hold anything, without their ends."""
        return (stripped for line in self._lines if (stripped := line.rstrip("\r\n")).strip())

    def texts(self) -> Iterator[str]:
        """Yields all that is to be encoded as before: the lines one by one, and blocks of them as they stand."""
        blocks = ("".join(self._lines[start : start + _BLOCK]) for start in range(0, len(self._lines), _BLOCK))
        return itertools.chain(self.lines(), blocks)

    def counts(self, backend: Any) -> collections.Counter[int]:
        """Counts the tokens of the lines, with those that encoding adds; those of line breaks count as often.

        Args:
            backend: A tokenizer of the library ``tokenizers``.
        """
        of_lines: collections.Counter[int] = collections.Counter()
        for ids in encoded(backend, self.lines()):
            of_lines.update(ids)
        of_all: collections.Counter[int] = collections.Counter()
        for ids in encoded(backend, self.texts()):
            of_all.update(ids)
        return collections.Counter({token: of_lines[token] or count for token, count in of_all.items()})


def encoded(backend: Any, texts: Iterator[str]) -> Iterator[list[int]]:
    """Encodes texts, some at a time."""
    while batch := list(itertools.islice(texts, _AT_A_TIME)):
        yield from (found.ids for found in backend.encode_batch(batch))
