"""How a model's texts are generated when nothing else is asked for: what its ``generation_config.json`` says."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import ONE_BEAM, Beams
from edgeq.targets.runtime.sampling import GREEDY, Sampling

_MOST_TOKENS = 1 << 31
_MOST_BANNED = 1024


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a model that draws no tokens draws with where its caller asks for a temperature.

    Attributes:
        top_k: Draw from the k most likely tokens only; 0 from all.
        top_p: Draw from the most likely tokens that together have this probability only.

    Raises:
        UsageError: If a value is out of range.
    """

    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        Sampling(temperature=1.0, top_k=self.top_k, top_p=self.top_p)  # checks them


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """Settings that a bundle carries; what a caller gives goes before them.

    Lengths count what comes before the first new token, as in transformers: the prompt, or the token that starts a
    text. Those of new tokens go before them.

    Attributes:
        sampling: How tokens are chosen.
        beams: How beams are searched.
        no_repeat_ngram_size: No sequence of this many tokens comes twice, those before the first new one included; 0
            allows all.
        min_length: Tokens before one may end the text; 0 allows it at once.
        max_length: Most tokens, or None.
        min_new_tokens: New tokens before one may end the text, or None.
        max_new_tokens: Most new tokens, or None.
        filters: What tokens are drawn with where the caller asks for a temperature and ``sampling`` has none.
        banned_ids: Tokens that never come.
        renormalize_logits: Whether beams count what the other settings leave as all there is.

    Raises:
        UsageError: If a value is out of range.
    """

    sampling: Sampling = GREEDY
    beams: Beams = ONE_BEAM
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    max_length: int | None = None
    min_new_tokens: int | None = None
    max_new_tokens: int | None = None
    filters: Filters = Filters()
    banned_ids: tuple[int, ...] = ()
    renormalize_logits: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.renormalize_logits, bool):
            raise UsageError(f"renormalize_logits must be true or false, found {self.renormalize_logits!r}")
        if len(self.banned_ids) > _MOST_BANNED or not all(type(token) is int for token in self.banned_ids):
            raise UsageError(f"banned_ids must be {_MOST_BANNED} token ids at most, found {self.banned_ids!r:.60}")
        for name in ("no_repeat_ngram_size", "min_length", "max_length", "min_new_tokens", "max_new_tokens"):
            value, least = getattr(self, name), int(name.startswith("max"))
            if value is None and name != "no_repeat_ngram_size" and name != "min_length":
                continue
            if type(value) is not int or not least <= value < _MOST_TOKENS:
                raise UsageError(f"{name} must be an integer in {least}..{_MOST_TOKENS - 1}, found {value!r}")


PLAIN_SETTINGS = GenerationSettings()
"""Greedy, without rules."""


def changed_sampling(
    settings: GenerationSettings,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
) -> Sampling:
    """Returns how tokens are chosen if those values are changed that are not None.

    Temperature 0 alone also takes back the filters, which would have no effect; one above 0 brings those of a model
    that draws no tokens by itself.

    Raises:
        UsageError: If a value is out of range, or has no effect.
    """
    sampling = settings.sampling
    if temperature is not None and temperature != 0 and sampling.temperature == 0:
        filters = dataclasses.asdict(settings.filters)
        sampling = dataclasses.replace(sampling, temperature=temperature, **filters)
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
