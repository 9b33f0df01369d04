"""Prompts to continuations, token by token."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.text_reading import READS_A_SOURCE
from edgeq.targets.runtime.texts import to_texts

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle
    from edgeq.targets.runtime.native_generation import GenerationOptions


class Piece(NamedTuple):
    """A token as it comes.

    Attributes:
        prompt: Number of the prompt, from 0.
        token: Its id.
        text: Text that is certain now; often empty, as when a character is not complete.
        finish: Empty, or why this is the prompt's last token; see :class:`GeneratedText`.
    """

    prompt: int
    token: int
    text: str
    finish: str = ""


_new_piece = functools.partial(tuple.__new__, Piece)
"""Makes a piece of its fields in a third of the time that ``Piece`` takes: once a token counts."""


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """The continuation of one prompt.

    Attributes:
        prompt: The prompt; None if it was given as ids.
        prompt_tokens: Number of its tokens.
        text: The continuation, without the stop text; empty if the bundle has no tokenizer.
        ids: Every token that was made, one that ended the text included.
        finish: Why it ended: ``end`` (the token that ends a text), ``stop`` (a stop text), ``length`` (as many tokens
            as were asked for) or ``context`` (the context is full).
        logits: float32 ``[len(ids), vocabulary]`` from which the tokens were chosen, or None if they were not kept.
    """

    prompt: str | None
    prompt_tokens: int
    text: str
    ids: list[int]
    finish: str
    logits: np.ndarray | None = None


@dataclasses.dataclass
class Speed:
    """What was done in which time, over all prompts so far.

    Attributes:
        prompt_tokens: Tokens of the prompts that were read.
        prompt_seconds: Time to read them, to the first token of each.
        new_tokens: Tokens that were made after the first of each prompt.
        seconds: Time to make those.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    new_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens made in a second once prompts are read; None if each prompt gave one token only."""
        return self.new_tokens / self.seconds if self.new_tokens and self.seconds > 0 else None


class Generation:
    """Continues prompts: an iterator over :class:`Piece`, in batches; see ``Bundle.generate``.

    Every prompt is checked before the first is run. What a prompt gives does not depend on the others.

    Attributes:
        speed: Tokens and seconds so far.
    """

    def __init__(
        self,
        bundle: Bundle,
        prompts: Sequence[str | Sequence[int]],
        *,
        options: GenerationOptions,
        keep_logits: bool,
    ) -> None:
        if bundle.generation.source is not None:
            raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
        self.speed = Speed()
        self._prompts = list(prompts)
        self._vocabulary = bundle.model.vocabulary
        self._logits: list[list[np.ndarray]] | None = [[] for _ in self._prompts] if keep_logits else None
        self._begun: set[int] = set()
        self._session = bundle.new_session()
        self._session.start_generation(to_texts(self._prompts, "prompt"), options)

    def __iter__(self) -> Iterator[Piece]:
        """Returns the iterator itself: tokens are made once."""
        return self

    def __next__(self) -> Piece:
        """Makes the next token."""
        started = time.perf_counter()
        found = self._session.next_piece(self._vocabulary if self._logits is not None else 0)
        if found is None:
            raise StopIteration
        seconds = time.perf_counter() - started
        number, token, text, finish, logits = found
        if number in self._begun:
            self.speed.new_tokens += 1
            self.speed.seconds += seconds
        else:
            self._begun.add(number)
            self.speed.prompt_tokens += self._session.generated(number).tokens
            self.speed.prompt_seconds += seconds
        if self._logits is not None and logits is not None:
            self._logits[number].append(logits)
        return _new_piece((number, token, text, finish))

    def results(self) -> list[GeneratedText]:
        """Makes whatever tokens are left and returns the continuations, in the order of the prompts."""
        for _ in self:
            pass
        results = []
        for number, prompt in enumerate(self._prompts):
            made = self._session.generated(number)
            logits = None if self._logits is None else np.stack(self._logits[number])
            given = prompt if isinstance(prompt, str) else None
            results.append(GeneratedText(given, made.tokens, made.text, made.ids, made.finish, logits))
        return results
