"""Tokenised examples, and the tensors of a batch of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from edgeq.distill.labels import NO_LABEL
from edgeq.evaluate.masks import SHARE


@dataclasses.dataclass(frozen=True)
class Similarities:
    """Graded pairs of the texts of an :class:`ExampleSet`.

    Attributes:
        pairs: int64, ``[pairs, 2]``: numbers of the two texts.
        scores: float64, ``[pairs]``.
    """

    pairs: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Masking:
    """How tokens of texts are left out, other ones whenever a text is read: BERT's rule.

    Of the tokens that are not special, 15% are to be predicted; of those 80% become the mask, 10% another token, and
    10% stay.

    Attributes:
        mask: Id of the mask.
        special: Ids that stay.
        vocabulary: Number of ids.
    """

    mask: int
    special: tuple[int, ...]
    vocabulary: int

    def __call__(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws from torch's generator, which a training seeds for every step.

        Args:
            ids: int64, ``[batch, sequence]``.
            attention_mask: int64, of the same shape.

        Returns:
            The ids with masks, and what is to be predicted, :data:`NO_LABEL` elsewhere.
        """
        plain = attention_mask.bool() & ~torch.isin(ids, torch.tensor(self.special))
        chosen = plain & (torch.rand(ids.shape) < SHARE)
        for row in range(len(ids)):
            if not bool(chosen[row].any()) and bool(plain[row].any()):  # a short text has one at least
                places = plain[row].nonzero()[:, 0]
                chosen[row, places[torch.randint(len(places), (1,))]] = True
        labels = torch.where(chosen, ids, NO_LABEL)
        fate = torch.rand(ids.shape)
        masked = torch.where(chosen & (fate < 0.8), self.mask, ids)
        other = torch.randint(self.vocabulary, ids.shape)
        return torch.where(chosen & (fate >= 0.9), other, masked), labels


@dataclasses.dataclass(frozen=True)
class ExampleSet:
    """Examples of one task.

    Attributes:
        inputs: Token ids of each example, int32 ``[length]``.
        pad: Id of padding.
        types: Token types of each example, for models that read pairs of texts; None otherwise.
        labels: One number an example (int64 classes or float64 values), or two (where an answer starts and ends), or
            int32 for each example: the ids to predict, or the classes of its tokens; but of an encoder-decoder as many
            as its inputs. None for texts alone.
        decoder_start: Id that a target begins with, for sequence-to-sequence; None otherwise.
        similarities: Graded pairs of the texts, for evaluating embeddings.
        first: Number of the first example, where several sets are numbered through.
        groups: Number of the query that each example belongs to, int64, for rankings; None otherwise.
        masking: Leaves tokens out whenever a batch is made; ``labels`` are those of a single time.
    """

    inputs: Sequence[np.ndarray]
    pad: int
    types: Sequence[np.ndarray] | None = None
    labels: np.ndarray | Sequence[np.ndarray] | None = None
    decoder_start: int | None = None
    similarities: Similarities | None = None
    first: int = 0
    groups: np.ndarray | None = None
    masking: Masking | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, source and target together; int64 ``[examples]``."""
        lengths = np.array([len(ids) for ids in self.inputs], np.int64)
        if self.decoder_start is not None and self.labels is not None:
            lengths += np.array([len(ids) for ids in self.labels], np.int64)
        return lengths

    def batch(self, chosen: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """Returns the tensors of some examples.

        Args:
            chosen: Numbers of the examples within this set.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 ``[batch, sequence]``, padded behind; ``token_type_ids``,
            ``decoder_input_ids`` and ``labels`` where the set has them (labels of tokens are
            :data:`~edgeq.distill.labels.NO_LABEL` in padding); ``example``, int64 ``[batch]``; ``query``, int64
            ``[batch]``, of rankings.
        """
        inputs = [self.inputs[index] for index in chosen]
        tensors = {
            "input_ids": _padded(inputs, self.pad),
            "attention_mask": _padded([np.ones(len(ids), np.int64) for ids in inputs], 0),
            "example": torch.tensor([self.first + int(index) for index in chosen]),
        }
        if self.types is not None:
            tensors["token_type_ids"] = _padded([self.types[index] for index in chosen], 0)
        if isinstance(self.labels, np.ndarray):
            tensors["labels"] = torch.from_numpy(self.labels[np.asarray(chosen, np.int64)])
        elif self.labels is not None:
            targets = [self.labels[index] for index in chosen]
            tensors["labels"] = _padded(targets, NO_LABEL)
            if self.decoder_start is not None:
                shifted = [np.concatenate([[self.decoder_start], ids[:-1]]) for ids in targets]
                tensors["decoder_input_ids"] = _padded(shifted, self.pad)
        if self.groups is not None:
            tensors["query"] = torch.from_numpy(self.groups[np.asarray(chosen, np.int64)])
        if self.masking is not None:
            made = self.masking(tensors["input_ids"], tensors["attention_mask"])
            tensors["input_ids"], tensors["labels"] = made
        return tensors

    def digest(self) -> str:
        """Returns a SHA-256 over ids and labels: what tells two data sets apart."""
        digest = hashlib.sha256()
        for ids in self.inputs:
            digest.update(np.ascontiguousarray(ids, np.int32).tobytes() + b"|")
        labels = [self.labels] if isinstance(self.labels, np.ndarray) else self.labels or []
        for values in labels:
            digest.update(np.ascontiguousarray(values).tobytes() + b"|")
        return digest.hexdigest()


def joined(first: ExampleSet, second: ExampleSet) -> ExampleSet:
    """Returns one set of the examples of two sets of the same task, the first ones in front."""
    labels: np.ndarray | list[np.ndarray] | None = None
    if isinstance(first.labels, np.ndarray) and isinstance(second.labels, np.ndarray):
        labels = np.concatenate([first.labels, second.labels])
    elif first.labels is not None and second.labels is not None:
        labels = [*first.labels, *second.labels]
    types = [*first.types, *second.types] if first.types is not None and second.types is not None else None
    return dataclasses.replace(first, inputs=[*first.inputs, *second.inputs], types=types, labels=labels)


def _padded(rows: Sequence[np.ndarray], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(len(row) for row in rows)), value, np.int64)
    for line, row in enumerate(rows):
        padded[line, : len(row)] = row
    return torch.from_numpy(padded)
