"""A batch of growing sequences: tokens in, logits of what follows out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.state import State
from edgeq.targets.runtime.text_reading import READS_A_SOURCE

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

_CHUNK = 128
"""Tokens of a row in one call: bounds the memory of a long prompt. The bits do not depend on it."""


class Decoder:
    """Sequences of one batch and their caches.

    A sequence gets the same logits alone and in any batch, and whether its tokens come at once or one by one.

    Args:
        bundle: A loaded bundle of a decoder.
        batch: Number of sequences; they start empty.

    Raises:
        UsageError: If the bundle generates no text, or only for an encoder input.
    """

    _has_source: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, *, batch: int = 1) -> None:
        if (bundle.generation.source is not None) != self._has_source:
            reason = "generates text from prompts; use `edgeq generate`" if self._has_source else READS_A_SOURCE
            raise UsageError(f"bundle {bundle.path} {reason}")
        self._bundle = bundle
        self._context = bundle.generation.context
        self._vocabulary = int(bundle.outputs[0].shape[-1])
        self._state: State = bundle.new_state(batch)
        self._lengths = np.zeros(batch, np.int64)

    @property
    def lengths(self) -> list[int]:
        """Tokens that each sequence holds."""
        return [int(length) for length in self._lengths]

    def append(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Appends tokens to every sequence.

        Args:
            tokens: For each sequence at least one id.

        Returns:
            float32 ``[batch, vocabulary]``: the logits after each sequence's last token.

        Raises:
            UsageError: If a sequence gets no token or outgrows the context, or an id is not in the vocabulary.
        """
        counts = np.array([len(row) for row in tokens], np.int64)
        if counts.shape != self._lengths.shape or counts.min(initial=1) < 1:
            raise UsageError(f"each of the {self._lengths.size} sequences needs at least one token")
        longest = int((self._lengths + counts).max())
        if longest > self._context:
            raise UsageError(f"a sequence would have {longest} tokens, the bundle's context holds {self._context}")
        logits = np.empty((counts.size, self._vocabulary), np.float32)
        for start in range(0, int(counts.max()), _CHUNK):
            new = np.clip(counts - start, 0, _CHUNK)
            ids = np.zeros((counts.size, int(new.max())), np.int64)
            for row, count in enumerate(new):
                ids[row, :count] = tokens[row][start : start + count]
            found = self._call(ids, new)
            last = (new > 0) & (start + new == counts)
            logits[last] = found[last]
        return logits

    def _call(self, ids: np.ndarray, new: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids, "past_lengths": self._lengths, "new_lengths": new, **self._further_inputs()}
        outputs = self._bundle.run(inputs, state=self._state)
        self._lengths = self._lengths + new
        return outputs[self._bundle.outputs[0].name]

    def _further_inputs(self) -> dict[str, np.ndarray]:
        """Inputs besides those of every decoder."""
        return {}


def logits_along(bundle: Bundle, ids: Sequence[int], *, prompt: int = 1, use_cache: bool = True) -> np.ndarray:
    """Returns the logits of every token that follows a prompt, with the given tokens taken as they are.

    Args:
        bundle: A loaded bundle of a decoder.
        ids: Prompt and continuation.
        prompt: Number of ids that belong to the prompt, at least 1.
        use_cache: False reads every prefix from its start, which gives the same bits.

    Returns:
        float32 ``[len(ids) - prompt + 1, vocabulary]``: row ``i`` predicts the token after ``ids[: prompt + i]``.

    Raises:
        UsageError: If there are fewer ids than the prompt has, or more than the context holds.
    """
    if not 1 <= prompt <= len(ids):
        raise UsageError(f"a prompt has 1..{len(ids)} of these ids, found {prompt}")
    decoder = Decoder(bundle)
    rows = [decoder.append([ids[:prompt]])[0]]
    for end in range(prompt + 1, len(ids) + 1):
        if use_cache:
            rows.append(decoder.append([ids[end - 1 : end]])[0])
        else:
            rows.append(Decoder(bundle).append([ids[:end]])[0])
    return np.stack(rows)
