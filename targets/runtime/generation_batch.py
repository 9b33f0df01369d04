"""Prompts that come while others are continued: continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeq.errors import UsageError
from edgeq.targets.runtime.generation import GeneratedText, Piece
from edgeq.targets.runtime.generation_options import generation_options
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.texts import to_texts

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle


class GenerationBatch:
    """Texts that run together: each joins as soon as there is room, and leaves when it is complete.

    What a text gives does not depend on the others. Calls from several threads are safe; they run one after the other.

    Args:
        bundle: A bundle that generates text. An encoder-decoder's texts are what it reads.
        size: Most texts that run together: each needs a cache of its own.

    Raises:
        UsageError: If the bundle makes no text, or the size is not in 1..1024.
    """

    def __init__(self, bundle: Bundle, *, size: int) -> None:
        _ = bundle.generation  # says so where there is none
        self._session = bundle.new_session()
        self._session.open_generation(size)
        self._prompts: dict[int, str | None] = {}

    def add(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        min_new_tokens: int | None = None,
        no_repeat_ngram_size: int | None = None,
        stop: Sequence[str] = (),
        ignore_end: bool = False,
    ) -> int:
        """Adds a text; the arguments are those of ``Bundle.generate``.

        Returns:
            Its number, which pieces of it have.

        Raises:
            UsageError: If the prompt or an option makes no sense, or the model searches beams by itself and
                ``sampling`` does not ask for another way. The other texts go on.
        """
        options = generation_options(
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            stop=stop,
            ignore_end=ignore_end,
            batch=1,
        )
        number = self._session.add_text(to_texts([prompt], "prompt"), options)
        self._prompts[number] = prompt if isinstance(prompt, str) else None
        return number

    def next(self) -> Piece | None:
        """Makes the next token of any text, or returns None if all are complete.

        Raises:
            EdgeqError: If a call failed; all texts are lost then.
        """
        found = self._session.next_piece(0)
        return None if found is None else Piece(found[0], found[1], found[2], found[3])

    def result(self, number: int) -> GeneratedText:
        """Returns what was made of a text so far.

        Raises:
            UsageError: If there is no such text.
        """
        self._check(number)
        made = self._session.generated(number)
        return GeneratedText(self._prompts[number], made.tokens, made.text, made.ids, made.finish)

    def drop(self, number: int) -> None:
        """Forgets a text, complete or not; its number may be given to another one.

        Raises:
            UsageError: If there is no such text.
        """
        self._check(number)
        self._session.drop_text(number)
        del self._prompts[number]

    def _check(self, number: int) -> None:
        if number not in self._prompts:
            raise UsageError(f"there is no text {number}; it was dropped, or never added")
