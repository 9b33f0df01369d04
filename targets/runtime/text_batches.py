"""Texts of any number to batches: windows of bounded size, and texts of about the same length together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgeq.errors import UsageError
from edgeq.targets.runtime.text_inputs import EncodedText, Text, TextReader

TOKEN_BUDGET = 256
"""Tokens of a batch, padding included, chosen by ``benchmarks/texts``."""
BATCHES_OF_WINDOW = 64
"""Texts are grouped within a window of this many full batches: more means less padding, and more texts in memory."""


def windows(reader: TextReader, texts: Iterable[Text], *, token_budget: int) -> Iterator[list[EncodedText]]:
    """Encodes texts, each once, and yields them in order, in lists whose size depends on the budget alone.

    Args:
        reader: What encodes them.
        texts: The texts, or pairs of texts; they are taken as they are needed.
        token_budget: Most tokens of a batch.

    Raises:
        UsageError: If the budget is not positive, or a text cannot be read.
    """
    if token_budget < 1:
        raise UsageError(f"the token budget must be at least 1, found {token_budget}")
    window: list[EncodedText] = []
    tokens = 0
    for number, text in enumerate(texts, start=1):
        window.append(reader.encode(text, f"text {number}"))
        tokens += len(window[-1].ids)
        if tokens >= BATCHES_OF_WINDOW * token_budget:
            yield window
            window, tokens = [], 0
    if window:
        yield window


def group_by_length(lengths: Sequence[int], *, token_budget: int) -> list[list[int]]:
    """Puts texts of about the same length together.

    Args:
        lengths: Tokens of each text.
        token_budget: Most tokens of a group, where each text counts as long as the longest of its group; a text that
            is longer is a group of its own.

    Returns:
        The numbers of the texts of each group, the longest texts first.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups = []
    start = 0
    while start < len(order):
        count = max(1, token_budget // lengths[order[start]])
        groups.append(order[start : start + count])
        start += count
    return groups
