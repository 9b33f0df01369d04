"""WikiText-2 as articles, as a stream of token ids, and as batches that depend on the step alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgeq.errors import UsageError

_ARTICLE_TITLE = re.compile(r"^ = [^=].*[^=] = $", re.MULTILINE)


def read_articles(file: Path) -> list[str]:
    """Returns the articles of a WikiText file, title first.

    Raises:
        UsageError: If the file does not exist.
    """
    if not file.is_file():
        raise UsageError(f"{file} does not exist: --data must be a folder with wikitext2/ and its text files")
    text = file.read_text(encoding="utf-8")
    starts = [match.start() for match in _ARTICLE_TITLE.finditer(text)] or [0]
    return [text[start:stop].strip() for start, stop in zip(starts, [*starts[1:], len(text)], strict=True)]


def count_words(file: Path) -> int:
    """Returns the words of a WikiText file as its authors count them: an end-of-line word for each line."""
    with file.open(encoding="utf-8") as lines:
        return sum(len(line.split()) + 1 for line in lines)


def token_stream(articles: list[str], tokenizer: Tokenizer, *, separator: int) -> np.ndarray:
    """Returns all articles in one int32 array, the id ``separator`` before each of them."""
    encodings = tokenizer.encode_batch(articles, add_special_tokens=False)
    return np.concatenate([np.array([separator, *encoding.ids], np.int32) for encoding in encodings])


@dataclass(frozen=True)
class Blocks:
    """Blocks of a token stream in an order that only ``seed`` and the epoch decide.

    Attributes:
        stream: Token ids, int32 ``[tokens]``.
        length: Tokens of a block.
        per_step: Blocks taken in each step.
        seed: Seed of the order.
    """

    stream: np.ndarray
    length: int
    per_step: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which (almost) every token is seen once."""
        # One block is given up to the random start of each epoch.
        return ((len(self.stream) - 1) // self.length - 1) // self.per_step

    def at(self, step: int) -> np.ndarray:
        """Returns the blocks of a step, int64 ``[per_step, length + 1]``: inputs and the token after each."""
        epoch, position = divmod(step, self.steps_per_epoch)
        random = np.random.default_rng([self.seed, epoch])
        start = int(random.integers(self.length))
        count = (len(self.stream) - 1 - start) // self.length
        chosen = random.permutation(count)[position * self.per_step : (position + 1) * self.per_step]
        rows = [self.stream[start + i * self.length :][: self.length + 1] for i in chosen]
        return np.stack(rows).astype(np.int64)
