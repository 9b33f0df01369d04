"""What the stages are run on: a grid of shapes, and texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.errors import UnsupportedError
from edgeq.export.signature import TRACED_LENGTH
from edgeq.models.sentence import POOLING_MASK

Arrays = dict[str, np.ndarray]

_LENGTHS = (5, 16, 33)
"""Odd, a multiple of every vector width, and one more than such a multiple; none is the traced length."""
_BATCHES = (1, 3)
_TEXT_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Feeds:
    """Inputs of a parity run.

    Attributes:
        grid: One feed for each length and batch size; random ids, padding in every text but the first.
        texts: Batches of tokenized sentences, padded to the longest of each batch.
    """

    grid: list[Arrays]
    texts: list[Arrays]

    @property
    def all(self) -> list[Arrays]:
        """The grid, then the texts."""
        return [*self.grid, *self.texts]


def make_feeds(
    input_names: Sequence[str],
    *,
    vocabulary: int,
    token_types: int,
    longest: int,
    tokenizer: Any,
    texts: Sequence[str],
) -> Feeds:
    """Makes the inputs of a parity run; the same arguments give the same inputs.

    Args:
        input_names: The model's inputs.
        vocabulary: Number of token ids.
        token_types: Number of token types; 0 for a model that has none.
        longest: Longest sequence that the model reads.
        tokenizer: A ``transformers`` tokenizer.
        texts: Sentences for the task rule.

    Raises:
        UnsupportedError: If the model has an input that parity cannot fill.
    """
    known = {"input_ids", "attention_mask", "token_type_ids", POOLING_MASK}
    if strange := [name for name in input_names if name not in known]:
        raise UnsupportedError(f"parity cannot make values for the model's input {strange[0]!r}")
    random = np.random.default_rng(20)
    grid = []
    for length in grid_lengths(longest):
        for batch in _BATCHES:
            mask = np.ones((batch, length), np.int64)
            for row in range(1, batch):
                mask[row, max(1, length - 3 * row) :] = 0
            ids = random.integers(0, vocabulary, (batch, length)) * mask
            types = random.integers(0, max(token_types, 1), (batch, length)) * mask
            kept = (np.arange(length) >= min(2, length - 1)).astype(np.int64) * np.ones_like(mask)
            grid.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": types, POOLING_MASK: kept})
    batches = [texts[start : start + _TEXT_BATCH] for start in range(0, len(texts), _TEXT_BATCH)]
    tokenized = [_tokenized(tokenizer, batch, longest) for batch in batches]
    return Feeds(*([{name: feed[name] for name in input_names} for feed in part] for part in (grid, tokenized)))


def grid_lengths(longest: int) -> list[int]:
    """Returns three lengths up to ``longest``, none of them the traced one (fewer if that is short)."""
    lengths = sorted({min(length, longest) for length in _LENGTHS} - {TRACED_LENGTH})
    spare = (length for length in range(longest, 0, -1) if length != TRACED_LENGTH and length not in lengths)
    while len(lengths) < len(_LENGTHS) and (extra := next(spare, None)) is not None:
        lengths = sorted([*lengths, extra])
    return lengths


def _tokenized(tokenizer: Any, texts: Sequence[str], longest: int) -> Arrays:
    rows = [
        tokenizer(text, truncation=True, max_length=longest, return_token_type_ids=True, return_attention_mask=True)
        for text in texts
    ]
    length = max(len(row["input_ids"]) for row in rows)
    feed: Arrays = {}
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        feed[name] = np.zeros((len(rows), length), np.int64)
        for line, row in enumerate(rows):
            feed[name][line, : len(row[name])] = row[name]
    feed[POOLING_MASK] = np.ones_like(feed["attention_mask"])
    pad = getattr(tokenizer, "pad_token_id", None) or 0
    feed["input_ids"][feed["attention_mask"] == 0] = pad
    return feed
