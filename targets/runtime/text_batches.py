"""Texts of any number to lists of bounded size, which the library runs one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgeq.targets.runtime.texts import Text

TOKEN_BUDGET = 256
"""Tokens of a batch, padding included, chosen by ``benchmarks/texts``."""
BATCHES_OF_WINDOW = 64
"""Texts are grouped by length within a window of about this many full batches: more means less padding, and more texts
in memory."""
_CHARACTERS_OF_TOKEN = 3
"""Fewer than there are on average in any script that puts spaces between words; where it is less, windows hold less."""
_SPECIAL_TOKENS = 2


def windows(texts: Iterable[Text], *, token_budget: int) -> Iterator[list[Text]]:
    """Yields texts in order, in lists whose size depends on the budget and the longest text alone.

    Args:
        texts: The texts, or pairs of texts; they are taken as they are needed.
        token_budget: Most tokens of a batch.
    """
    window: list[Text] = []
    tokens = 0
    for text in texts:
        window.append(text)
        tokens += _about(text) + _SPECIAL_TOKENS
        if tokens >= BATCHES_OF_WINDOW * token_budget:
            yield window
            window, tokens = [], 0
    if window:
        yield window


def _about(text: Any) -> int:
    """About how many tokens a text has; something that is no text is refused later."""
    parts = text if isinstance(text, tuple | list) else [text]
    return sum(len(part) for part in parts if isinstance(part, str)) // _CHARACTERS_OF_TOKEN
