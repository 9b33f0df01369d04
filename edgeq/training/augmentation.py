"""More training sentences by putting other words in the place of some (TinyBERT's augmentation).

Jiao et al., "TinyBERT" (2020), algorithm 1: for each sentence ``copies`` new ones are made; in each of them a word is
replaced with probability ``replace`` by one of its ``candidates``. Candidates are predictions of a masked language
model, or the nearest words in a table of word vectors. TinyBERT uses the model for words that are one piece of its
vocabulary and GloVe for the others; here one source serves all, words of several pieces stay, and the word vectors
are the teacher's own embedding table, because a student is trained to follow that teacher.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from typing import Any

import torch

from edgeq.errors import UsageError
from edgeq.progress import Progress, silent
from edgeq.training.rows import Rows

Candidates = Callable[[list[str]], list[list[str]]]
"""The words of a sentence to the words that may stand in the place of each; an empty list keeps the word."""

_SENTENCE_COLUMNS = (
    *("sentence", "text", "sentence1", "sentence2", "premise", "hypothesis"),
    *("question", "question1", "question2"),
)
_WORD = re.compile(r"[a-z]{2,}")
# Replacing these makes sentences ungrammatical far more often than it makes them different.
_LIST = (
    "a an and are as at be but by for from had has have he her his if in into is it its no not of on or our "
    "she so that the their them then there they this to was we were what when which who will with you your"
)
_FUNCTION_WORDS = frozenset(_LIST.split())
_NEIGHBOUR_ROWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How sentences are multiplied; the defaults are those of TinyBERT's code.

    Attributes:
        copies: New sentences for each one (TinyBERT's N).
        candidates: Words to choose from in each place (M).
        replace: Probability of replacing a word (p).
        seed: Of the choices.
    """

    copies: int = 30
    candidates: int = 15
    replace: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.copies < 1 or self.candidates < 1 or not 0 <= self.replace <= 1:
            raise UsageError(
                "augmentation needs 1 or more copies and candidates, and replaces words with a probability of 0..1; "
                f"found {self.copies}, {self.candidates} and {self.replace}"
            )


def augment_rows(
    rows: Rows,
    candidates: Candidates,
    settings: AugmentationSettings,
    *,
    progress: Progress = silent,
) -> Rows:
    """Makes new rows; copies whose sentences equal those of an earlier copy or of the row itself are left out.

    Args:
        rows: Sentences or pairs with their answers, which the copies keep: what counts is the teacher's answer.
        candidates: Where other words come from.
        settings: How many, and how often a word is replaced.
        progress: Told how many rows are done.

    Returns:
        The new rows alone, in the order of those they were made from.

    Raises:
        UsageError: If no column holds sentences, or not one sentence could be changed.
    """
    columns = [name for name in _SENTENCE_COLUMNS if name in rows.cells[0]]
    if not columns:
        raise UsageError(f"{rows.source} has no column of sentences to augment, found {', '.join(rows.cells[0])}")
    generator = random.Random(settings.seed)  # noqa: S311  # no secret depends on it
    cells: list[dict[str, str]] = []
    places: list[str] = []
    for index, (row, place) in enumerate(zip(rows.cells, rows.places, strict=True)):
        if index % 256 == 0:
            progress("augmenting examples", index, len(rows.cells))
        sentences = [_Sentence(row[name], candidates) for name in columns]
        seen = {tuple(row[name] for name in columns)}
        for _ in range(settings.copies):
            texts = tuple(sentence.changed(settings.replace, generator) for sentence in sentences)
            if texts not in seen:
                seen.add(texts)
                cells.append(row | dict(zip(columns, texts, strict=True)))
                places.append(f"{place}, augmented")
    progress("augmenting examples", len(rows.cells), len(rows.cells))
    if not cells:
        raise UsageError(f"{rows.source}: no word of any sentence could be replaced; leave augmentation out")
    return Rows(rows.source, cells, places)


class _Sentence:
    """A sentence and what may stand in the place of each word."""

    def __init__(self, text: str, candidates: Candidates) -> None:
        self._words = text.split(" ")
        self._candidates = candidates(self._words)

    def changed(self, share: float, generator: random.Random) -> str:
        """Returns the sentence with some words replaced."""
        return " ".join(
            generator.choice(others) if others and generator.random() < share else word
            for word, others in zip(self._words, self._candidates, strict=True)
        )


def neighbours_of(model: Any, tokenizer: Any, *, count: int) -> Candidates:
    """Candidates from a table of embeddings: the words whose vectors have the largest cosine.

    Args:
        model: The model whose input embeddings are the vectors, such as the teacher.
        tokenizer: Its tokenizer; words are the entries of its vocabulary that are letters alone.
        count: Neighbours of each word.
    """
    words, rows = _whole_words(tokenizer)
    table = model.get_input_embeddings().weight.detach().float().cpu()[rows]
    vectors = torch.nn.functional.normalize(table, dim=-1)
    number = {word: index for index, word in enumerate(words)}
    nearest: list[list[int]] = []
    for start in range(0, len(words), _NEIGHBOUR_ROWS):
        similar = vectors[start : start + _NEIGHBOUR_ROWS] @ vectors.T
        similar[torch.arange(len(similar)), torch.arange(start, start + len(similar))] = -2.0  # not the word itself
        nearest += similar.topk(min(count, max(len(words) - 1, 1)), dim=-1).indices.tolist()

    def candidates(sentence: list[str]) -> list[list[str]]:
        return [
            [words[other] for other in nearest[number[word]]] if _replaceable(word) and word in number else []
            for word in (entry.lower() for entry in sentence)
        ]

    return candidates


def predictions_of(model: Any, tokenizer: Any, *, count: int) -> Candidates:
    """Candidates from a masked language model: what it predicts where the word is hidden.

    Args:
        model: A ``transformers`` model for masked language modelling.
        tokenizer: Its tokenizer, which has a mask token.
        count: Predictions for each word.

    Raises:
        UsageError: If the tokenizer has no mask token.
    """
    if tokenizer.mask_token is None:
        raise UsageError("the masked language model's tokenizer has no mask token; give another model")
    words, rows = _whole_words(tokenizer)
    known = set(words)
    columns = torch.tensor(rows)

    def candidates(sentence: list[str]) -> list[list[str]]:
        places = [i for i, word in enumerate(sentence) if _replaceable(word.lower()) and word.lower() in known]
        if not places:
            return [[] for _ in sentence]
        texts = [" ".join([*sentence[:place], tokenizer.mask_token, *sentence[place + 1 :]]) for place in places]
        longest = model.config.max_position_embeddings
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
        found: list[list[str]] = [[] for _ in sentence]
        for row, place in enumerate(places):
            masked = (inputs["input_ids"][row] == tokenizer.mask_token_id).nonzero().flatten()
            if len(masked) == 0:  # the word was behind the model's last position
                continue
            best = logits[row, masked[0], columns].topk(min(count + 1, len(words))).indices.tolist()
            found[place] = [words[other] for other in best if words[other] != sentence[place].lower()][:count]
        return found

    return candidates


def _whole_words(tokenizer: Any) -> tuple[list[str], list[int]]:
    """Returns the entries of a vocabulary that are words by themselves, and their ids."""
    special = set(tokenizer.all_special_tokens)
    entries = sorted(
        (index, word)
        for word, index in tokenizer.get_vocab().items()
        if word not in special and _WORD.fullmatch(word)
    )
    if not entries:
        raise UsageError("the tokenizer's vocabulary has no whole words, which augmentation needs; leave it out")
    return [word for _, word in entries], [index for index, _ in entries]


def _replaceable(word: str) -> bool:
    return word not in _FUNCTION_WORDS and _WORD.fullmatch(word) is not None
