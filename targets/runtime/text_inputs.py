"""Texts to the arrays that a model reads: prompt, tokens, truncation, token types, padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.text_info import POOLING_MASK
from edgeq.targets.runtime.tokenizer import check_unicode, load_tokenizer

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle
    from edgeq.targets.runtime.schema import TensorSpec

Text = str | tuple[str, str]
"""A text, or a pair of texts that the model reads together."""


@dataclasses.dataclass(frozen=True)
class EncodedText:
    """A text as the model reads it.

    Attributes:
        text: The text as it was given.
        ids: Token ids, special ones and those of the prompt included.
        types: For each token, which text of a pair it belongs to.
        truncated: Whether tokens were cut off.
        prompt_tokens: Tokens at the beginning that the pooling leaves out.
    """

    text: Text
    ids: list[int]
    types: list[int]
    truncated: bool = False
    prompt_tokens: int = 0


class TextReader:
    """Encodes texts for a bundle.

    Args:
        bundle: A loaded bundle that carries a tokenizer.
        prompt_name: Which of its prompts is put before every text; None takes its default, if it has one.

    Raises:
        UsageError: If the bundle has no tokenizer or no such prompt.
        FormatError: If the tokenizer file is damaged.
    """

    def __init__(self, bundle: Bundle, *, prompt_name: str | None = None) -> None:
        model, self._info = bundle.manifest.model, bundle.manifest.text
        self._tokenizer = load_tokenizer(bundle.path)
        limits = [limit for limit in (model.max_length, self._info.max_tokens) if limit is not None]
        self._longest = min(limits) if limits else None
        if self._info.cuts and self._longest is not None:
            self._tokenizer.enable_truncation(self._longest, direction=self._info.cut_side)
        self._prompt = self._prompt_of(bundle, prompt_name)
        reads_mask = any(spec.name == POOLING_MASK for spec in bundle.inputs)
        self._prompt_tokens = self._count(self._prompt) if reads_mask and self._prompt else 0

    def encode(self, text: Text, what: str) -> EncodedText:
        """Encodes one text, or a pair.

        Args:
            text: The text.
            what: What messages call it.

        Raises:
            UsageError: If it is no text, empty, no valid Unicode, or longer than the model allows.
        """
        first, second = _parts(text, what)
        for part in (first,) if second is None else (first, second):
            if not part.strip():
                raise UsageError(f"{what} is empty; give at least one word")
            check_unicode(part, what)
        encoding = self._tokenizer.encode(self._prompt + first, second)
        ids: list[int] = encoding.ids
        if not ids:
            raise UsageError(f"{what} has no tokens; give at least one word")
        if self._longest is not None and len(ids) > self._longest:
            raise UsageError(
                f"{what} has {len(ids)} tokens, the model takes at most {self._longest}; shorten or split it"
            )
        cut = bool(encoding.overflowing)
        return EncodedText(text, ids, encoding.type_ids, cut, min(self._prompt_tokens, len(ids)))

    def _prompt_of(self, bundle: Bundle, name: str | None) -> str:
        prompts = self._info.prompts
        if name is None:
            return prompts[self._info.default_prompt] if self._info.default_prompt is not None else ""
        if name not in prompts:
            known = ", ".join(map(repr, prompts)) or "none"
            raise UsageError(f"bundle {bundle.path} has no prompt {name!r}; its prompts are: {known}")
        return prompts[name]

    def _count(self, prompt: str) -> int:
        """Tokens of the prompt with those before it, without a special one behind it."""
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1:] == [1] else 0)


def _parts(text: Any, what: str) -> tuple[str, str | None]:
    if isinstance(text, str):
        return text, None
    if not isinstance(text, tuple | list) or len(text) != 2 or not all(isinstance(part, str) for part in text):
        raise UsageError(f"{what} should be a text or a pair of texts, found {text!r:.60}")
    return text[0], text[1]


def padded_batch(texts: Sequence[EncodedText], inputs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """Puts texts into one batch, filled up behind with tokens that no text sees.

    Args:
        texts: The texts.
        inputs: The model's inputs.

    Returns:
        int64 arrays ``[texts, longest]``, for the inputs that the model has.
    """
    shape = len(texts), max(len(text.ids) for text in texts)
    arrays: dict[str, Any] = {spec.name: np.zeros(shape, np.int64) for spec in inputs}
    for row, text in enumerate(texts):
        length = len(text.ids)
        values = {"input_ids": text.ids, "attention_mask": 1, "token_type_ids": text.types, POOLING_MASK: 1}
        for name, array in arrays.items():
            array[row, :length] = values[name]
        if POOLING_MASK in arrays:
            arrays[POOLING_MASK][row, : text.prompt_tokens] = 0
    return arrays
