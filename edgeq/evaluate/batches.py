"""Runs texts through a model in batches of similar length, and puts the results back in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from edgeq.backends import Arrays, Backend
from edgeq.formats.sentence_model import SentenceModel
from edgeq.progress import Progress, silent

T = TypeVar("T")

Tokens = Mapping[str, Sequence[int]]
"""``input_ids`` and ``token_type_ids`` of a text."""
Read = Callable[[int, dict[str, np.ndarray]], T]
"""From the number of a text and its outputs by name, without the axis of the batch, to what is kept of them."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What is put before every text, and how many tokens of it the pooling leaves out."""

    text: str = ""
    excluded: int = 0

    @classmethod
    def of(cls, sentence: SentenceModel | None, tokenizer: Any, *, max_length: int) -> Prompt:
        """Returns the default prompt of a sentence model, whose texts are cut to ``max_length`` tokens."""
        name = sentence.default_prompt if sentence is not None else None
        text = sentence.prompts.get(name, "") if sentence is not None and name is not None else ""
        pooling = sentence.pooling if sentence is not None else None
        if not text or pooling is None or pooling.include_prompt:
            return cls(text)
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        return cls(text, len(ids) - (ids[-1] in tokenizer.all_special_ids))


@dataclasses.dataclass(frozen=True)
class Batches:
    """A model with its tokenizer.

    Attributes:
        model: The model. It is given ``input_ids``, ``attention_mask`` and ``token_type_ids`` (int64,
            ``[batch, sequence]``), and ``pooling_mask`` if its pooling leaves out its prompt.
        tokenizer: A ``transformers`` tokenizer.
        max_length: Most tokens of a text.
        batch_size: Texts in one batch; they are sorted by length, so that little is padded.
        progress: Told how many batches are done.
        prompt: What is put before every text.
    """

    model: Backend
    tokenizer: Any
    max_length: int
    batch_size: int = 32
    progress: Progress = silent
    prompt: Prompt = dataclasses.field(default_factory=Prompt)

    def tokens(self, first: str, second: str | None = None) -> Tokens:
        """Tokenises a text or a pair, cut to the longest text."""
        tokens: Tokens = self.tokenizer(
            self.prompt.text + first, second, truncation=True, max_length=self.max_length, return_token_type_ids=True
        )
        return tokens

    def of_texts(self, texts: Sequence[tuple[str, str | None]], read: Read[T]) -> list[T]:
        """Runs texts or pairs; see :meth:`of_tokens`."""
        return self.of_tokens([self.tokens(*text) for text in texts], read)

    def of_tokens(self, texts: Sequence[Tokens], read: Read[T]) -> list[T]:
        """Runs tokenised texts.

        Args:
            texts: The texts.
            read: Called with the outputs of each, of which those for tokens end in padding.

        Returns:
            What ``read`` returned, in the order of the texts.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]["input_ids"]))
        results: dict[int, T] = {}
        starts = range(0, len(order), self.batch_size)
        for done, start in enumerate(starts):
            self.progress("evaluating", done, len(starts))
            chosen = order[start : start + self.batch_size]
            outputs = self._run(*self._pad([texts[index] for index in chosen]))
            for row, index in enumerate(chosen):
                results[index] = read(index, {name: array[row] for name, array in outputs.items()})
        self.progress("evaluating", len(starts), len(starts))
        return [results[index] for index in range(len(texts))]

    def _run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> Arrays:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if self.prompt.excluded:
            feed["pooling_mask"] = np.ones_like(mask)
            feed["pooling_mask"][:, : self.prompt.excluded] = 0
        return self.model(feed)

    def _pad(self, rows: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), longest), self.tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        for line, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[line, :length] = row["input_ids"]
            mask[line, :length] = 1
            types[line, :length] = row["token_type_ids"]
        return ids, mask, types
