"""Which tokens may not come next, and which one must, whatever the logits say.

As in transformers: no end before a text is long enough, no sequence of tokens twice, given first and last tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from edgeq.errors import UsageError

_MOST_TOKENS = 1 << 31


@dataclasses.dataclass(frozen=True)
class Rules:
    """Limits on what a text may hold; checked when it is made.

    Attributes:
        min_new_tokens: Tokens that are made before one may end the text.
        no_repeat_ngram_size: No sequence of this many tokens comes twice, those before the first new one included; 0
            allows all.

    Raises:
        UsageError: If a value is out of range.
    """

    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        for name in ("min_new_tokens", "no_repeat_ngram_size"):
            value = getattr(self, name)
            is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not is_integer or not 0 <= value < _MOST_TOKENS:
                raise UsageError(f"{name} must be an integer in 0..{_MOST_TOKENS - 1}, found {value!r}")


NO_RULES = Rules()
"""Every token may come."""


class NextToken:
    """Applies rules to the texts of one source or prompt.

    Args:
        rules: What a text may hold.
        prefix: Tokens before the first new one: the prompt, or the token that starts a text.
        end_ids: Tokens that end a text.
        forced: Tokens that are not chosen, by the length of the new text that ends with them.
    """

    def __init__(
        self, rules: Rules, *, prefix: Sequence[int], end_ids: Collection[int], forced: Mapping[int, int]
    ) -> None:
        self._rules = rules
        self._prefix = list(prefix)
        self._end_ids = sorted(end_ids)
        self._forced = forced

    def forced(self, made: Sequence[int]) -> int | None:
        """Returns the token that must follow those made so far, or None if one may be chosen."""
        return self._forced.get(len(made) + 1)

    def banned(self, made: Sequence[int]) -> list[int]:
        """Returns tokens that must not follow those made so far; some may be named twice."""
        ends = self._end_ids if len(made) < self._rules.min_new_tokens else []
        size = self._rules.no_repeat_ngram_size
        return [*ends, *_completions([*self._prefix, *made], size)] if size else list(ends)


def _completions(tokens: list[int], size: int) -> list[int]:
    """Tokens that would complete a sequence of ``size`` tokens that is there already."""
    known = size - 1
    if len(tokens) < size:
        return []
    end = tokens[len(tokens) - known :]
    return [tokens[at + known] for at in range(len(tokens) - known) if tokens[at : at + known] == end]


def forced_tokens(limit: int, *, first: int | None, last: int | None) -> dict[int, int]:
    """Returns the tokens that are not chosen, by the length of the text that ends with them.

    Args:
        limit: Most tokens of a text.
        first: Token that every text starts with, or None.
        last: Token that a text of ``limit`` tokens ends with, or None; it goes before ``first``.
    """
    tokens = {} if first is None else {1: first}
    return tokens if last is None else tokens | {limit: last}
