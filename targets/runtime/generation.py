"""Prompts to continuations, token by token."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.decoder import READS_A_SOURCE, Decoder
from edgeq.targets.runtime.rules import NextToken, Rules
from edgeq.targets.runtime.sampling import Sampler, Sampling
from edgeq.targets.runtime.text_stream import TextStream
from edgeq.targets.runtime.tokenizer import TOKENIZER_FILE, encode, load_tokenizer

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

DEFAULT_BATCH = 8
"""Prompts that run together: each needs a cache of its own."""
DEFAULT_NEW_TOKENS = 100
"""Most tokens to make for a prompt where neither the caller nor the model says."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A token as it comes.

    Attributes:
        prompt: Number of the prompt, from 0.
        token: Its id.
        text: Text that is certain now; often empty, as when a character is not complete.
    """

    prompt: int
    token: int
    text: str


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


class _Sequence:
    """One prompt at work."""

    def __init__(self, number: int, prompt: str | None, ids: list[int], owner: Generation) -> None:
        self.number = number
        self.prompt = prompt
        self.prompt_ids = ids
        self.ids: list[int] = []
        self.text = ""
        self.finish: str | None = None
        self.logits: list[np.ndarray] = []
        self._owner = owner
        self._most = owner.most_new_tokens(len(ids))
        self._next = NextToken(owner.rules(len(ids)), prefix=ids, end_ids=owner.end_ids, forced={})
        self._sampler = Sampler(owner.sampling, ids)
        self._stream = TextStream(owner.tokenizer, ids, owner.stop) if owner.tokenizer is not None else None

    def advance(self, logits: np.ndarray) -> Piece:
        """Chooses the next token."""
        owner = self._owner
        token = self._sampler.choose(logits, banned=self._next.banned(self.ids))
        self.ids.append(token)
        if owner.keep_logits:
            self.logits.append(logits.copy())
        text = ""
        if token in owner.end_ids:
            self.finish = "end"
        elif self._stream is not None:
            text = self._stream.push(token)
            self.finish = "stop" if self._stream.stopped else None
        if self.finish is None and len(self.ids) == self._most:
            self.finish = "length"
        if self.finish is None and len(self.prompt_ids) + len(self.ids) > owner.context:
            self.finish = "context"
        if self.finish is not None and self._stream is not None:
            text += self._stream.finish()
            if self._stream.stopped:  # a stop text that the last, incomplete character completed
                self.finish = "stop"
        self.text += text
        return Piece(self.number, token, text)

    def result(self) -> GeneratedText:
        logits = np.stack(self.logits) if self._owner.keep_logits else None
        return GeneratedText(
            self.prompt, len(self.prompt_ids), self.text, self.ids, self.finish or "length", logits
        )


class Generation:
    """Continues prompts: an iterator over :class:`Piece`, in batches; see ``Bundle.generate``.

    Every prompt is checked before the first is run. What a prompt gives does not depend on the others.

    Attributes:
        sampling: How tokens are chosen.
        stop: Texts that end a continuation.
        end_ids: Tokens that end a continuation.
        context: Most tokens of a sequence.
        keep_logits: Whether results hold the logits.
        tokenizer: The bundle's, or None if it has none.
        speed: Tokens and seconds so far.
    """

    def __init__(
        self,
        bundle: Bundle,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int | None,
        sampling: Sampling | None,
        min_new_tokens: int | None,
        no_repeat_ngram_size: int | None,
        stop: Sequence[str],
        ignore_end: bool,
        keep_logits: bool,
        batch: int,
    ) -> None:
        generation = bundle.generation
        if generation.source is not None:
            raise UsageError(f"bundle {bundle.path} {READS_A_SOURCE}")
        for name, value in (("max_new_tokens", max_new_tokens), ("batch", batch)):
            if value is None and name == "max_new_tokens":
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise UsageError(f"{name} must be an integer of at least 1, found {value!r}")
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise UsageError(f"stop must be a list of texts that are not empty, found {stop!r}")
        self._settings = generation.settings
        self.sampling = sampling or self._settings.sampling
        self.stop, self.keep_logits = tuple(stop), keep_logits
        self._max_new_tokens = max_new_tokens
        self._rules = {"min_new_tokens": min_new_tokens, "no_repeat_ngram_size": no_repeat_ngram_size}
        self.context = generation.context
        self.end_ids = frozenset(() if ignore_end else generation.end_ids)
        needs_text = bool(stop) or any(isinstance(prompt, str) for prompt in prompts)
        has_tokenizer = (bundle.path / TOKENIZER_FILE).is_file()
        self.tokenizer: Any = load_tokenizer(bundle.path) if needs_text or has_tokenizer else None
        self.speed = Speed()
        self._bundle = bundle
        self._batch = int(batch)
        self._sequences = [self._sequence(number, prompt) for number, prompt in enumerate(prompts)]
        if not self._sequences:
            raise UsageError("there is no prompt; give at least one")
        self._pieces = self._run()

    def __iter__(self) -> Iterator[Piece]:
        """Returns the iterator itself: tokens are made once."""
        return self

    def __next__(self) -> Piece:
        """Makes the next token."""
        return next(self._pieces)

    def results(self) -> list[GeneratedText]:
        """Makes whatever tokens are left and returns the continuations, in the order of the prompts."""
        for _ in self:
            pass
        return [sequence.result() for sequence in self._sequences]

    def most_new_tokens(self, prompt: int) -> int:
        """Returns how many tokens to make for a prompt of that many tokens, if nothing else ends it."""
        if self._max_new_tokens is not None:
            return int(self._max_new_tokens)
        return self._settings.most_new_tokens(prompt, default=DEFAULT_NEW_TOKENS)

    def rules(self, prompt: int) -> Rules:
        """Returns what the continuation of a prompt of that many tokens may hold."""
        return self._settings.rules(prompt, **self._rules)

    def _sequence(self, number: int, prompt: str | Sequence[int]) -> _Sequence:
        what = f"prompt {number + 1}"
        if isinstance(prompt, int | np.integer):
            raise UsageError(f"{what} must be a text or a list of token ids, found {prompt!r}")
        if len(prompt) == 0:
            raise UsageError(f"{what} is empty; give at least one word")
        ids = encode(self.tokenizer, prompt, what) if isinstance(prompt, str) else [int(token) for token in prompt]
        most = self._bundle.inputs[0].maximum
        if most is not None and not (min(ids) >= 0 and max(ids) <= most):
            raise UsageError(f"{what} holds an id outside the vocabulary; ids lie in 0..{most}")
        if len(ids) > self.context:
            raise UsageError(
                f"{what} has {len(ids)} tokens, the bundle's context holds {self.context}; shorten it, or compile "
                "with a larger --context if the model allows it"
            )
        return _Sequence(number, prompt if isinstance(prompt, str) else None, ids, self)

    def _run(self) -> Iterator[Piece]:
        for start in range(0, len(self._sequences), self._batch):
            yield from self._run_together(self._sequences[start : start + self._batch])

    def _run_together(self, sequences: list[_Sequence]) -> Iterator[Piece]:
        started = time.perf_counter()
        decoder = Decoder(self._bundle, batch=len(sequences))
        logits = decoder.append([sequence.prompt_ids for sequence in sequences])
        pieces = [sequence.advance(row) for sequence, row in zip(sequences, logits, strict=True)]
        self.speed.prompt_seconds += time.perf_counter() - started
        self.speed.prompt_tokens += sum(len(sequence.prompt_ids) for sequence in sequences)
        yield from pieces
        while True:
            started = time.perf_counter()
            rows = [row for row, sequence in enumerate(sequences) if sequence.finish is None]
            if not rows:
                return
            if len(rows) < len(sequences):
                decoder.keep(rows)
                sequences = [sequences[row] for row in rows]
            logits = decoder.append([[sequence.ids[-1]] for sequence in sequences])
            pieces = [sequence.advance(row) for sequence, row in zip(sequences, logits, strict=True)]
            self.speed.seconds += time.perf_counter() - started
            self.speed.new_tokens += len(pieces)
            yield from pieces
