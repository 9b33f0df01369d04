"""Tokens to text while they come: whole characters only, and nothing that a stop text may still cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"
"""What decoders give for bytes that are no whole character yet."""


class TextStream:
    """Decodes the continuation of a prompt piece by piece.

    The pieces put together are the text of the continuation.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``.
        prompt: Ids before the first; decoders may treat the start of a text differently.
        stop: Texts that end the continuation.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids = list(prompt)
        self._window = 0  # ids from here on are decoded again with each new one
        self._decoded = len(self._ids)  # ids before it are in the text already
        self._held = ""  # decoded, but perhaps the beginning of a stop text
        self.stopped = False

    def push(self, token: int) -> str:
        """Takes the next token and returns the text that is certain now, often none."""
        self._ids.append(token)
        before = self._decode(self._window, self._decoded)
        text = self._decode(self._window, len(self._ids))
        if text.endswith(_INCOMPLETE) or len(text) <= len(before):
            return ""
        self._window, self._decoded = self._decoded, len(self._ids)
        return self._release(text[len(before) :])

    def finish(self) -> str:
        """Returns the rest: an incomplete character, and what was held back."""
        if self.stopped:
            return ""
        before = self._decode(self._window, self._decoded)
        rest = self._decode(self._window, len(self._ids))[len(before) :]
        self._window = self._decoded = len(self._ids)
        released = self._release(rest)
        held, self._held = self._held, ""
        return released if self.stopped else released + held

    def _decode(self, start: int, end: int) -> str:
        return str(self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True))

    def _release(self, text: str) -> str:
        """Returns the part of held and new text before a stop text or what may become one."""
        text = self._held + text
        ends = [text.find(stop) for stop in self._stop if stop in text]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        keep = next(
            (n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in self._stop)), 0
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
