"""How a model's texts are made when nothing else is asked for: what its ``generation_config.json`` says."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgeq.targets.runtime.beams import ONE_BEAM, Beams
from edgeq.targets.runtime.rules import Rules
from edgeq.targets.runtime.sampling import GREEDY, Sampling


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """Settings that a bundle carries; what a caller gives goes before them.

    Lengths count what comes before the first new token, as in transformers: the prompt, or the token that starts a
    text. Those of new tokens go before them.

    Attributes:
        sampling: How tokens are chosen.
        beams: How beams are searched.
        no_repeat_ngram_size: See :class:`Rules`.
        min_length: Tokens before one may end the text; 0 allows it at once.
        max_length: Most tokens, or None.
        min_new_tokens: New tokens before one may end the text, or None.
        max_new_tokens: Most new tokens, or None.
    """

    sampling: Sampling = GREEDY
    beams: Beams = ONE_BEAM
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    max_length: int | None = None
    min_new_tokens: int | None = None
    max_new_tokens: int | None = None

    def rules(
        self, prefix: int, *, min_new_tokens: int | None = None, no_repeat_ngram_size: int | None = None
    ) -> Rules:
        """Returns the rules for a text.

        Args:
            prefix: Tokens before its first new one.
            min_new_tokens: What the caller asks for, or None.
            no_repeat_ngram_size: The same.

        Raises:
            UsageError: If a value is out of range.
        """
        fewest = self.min_new_tokens if min_new_tokens is None else min_new_tokens
        size = self.no_repeat_ngram_size if no_repeat_ngram_size is None else no_repeat_ngram_size
        return Rules(max(self.min_length - prefix, 0) if fewest is None else fewest, size)

    def most_new_tokens(self, prefix: int, *, default: int) -> int:
        """Returns how many tokens to make after ``prefix`` tokens, at least one."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return default if self.max_length is None else max(self.max_length - prefix, 1)


PLAIN_SETTINGS = GenerationSettings()
"""Greedy, without rules."""


def changed_sampling(
    sampling: Sampling,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
) -> Sampling:
    """Returns settings with those values changed that are not None.

    Temperature 0 alone also takes back the filters, which would have no effect.

    Raises:
        UsageError: If a value is out of range, or has no effect.
    """
    if temperature == 0:
        sampling = dataclasses.replace(sampling, temperature=0.0, top_k=0, top_p=1.0)
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    return dataclasses.replace(sampling, **{name: value for name, value in given.items() if value is not None})
