"""What the tokens of each kind of tokenizer need to be found again, as ``tokenizer.json`` describes them.

A text is encoded as before by a part of its tokenizer's tokens if that part holds the tokens of the text and

* WordPiece, which takes the longest token that fits: nothing else, for among fewer candidates the longest stays so;
* BPE, which applies the merge of least rank again and again: all tokens that merges into a kept token pass through, for
  then every merge that was applied is there, and among fewer candidates it is still the one of least rank;
* Unigram, which takes the segmentation of largest sum of scores: the token of least score, from which the score of
  unknown characters is computed, for among fewer segmentations the best stays so.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

from edgeq.errors import FormatError, UnsupportedError

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Kind(abc.ABC):
    """The tokens of one tokenizer.

    Args:
        model: The part ``model`` of ``tokenizer.json``.
    """

    name: ClassVar[str]

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.tokens: dict[str, int] = self._tokens()

    def _tokens(self) -> dict[str, int]:
        return dict(self.model["vocab"])

    def text_of(self, token: str) -> str:
        """Returns the characters that a token stands for, without marks of where in a word it is."""
        return token

    @property
    def characters(self) -> set[int]:
        """Tokens of a single character."""
        return {number for token, number in self.tokens.items() if len(self.text_of(token)) == 1}

    @property
    def always(self) -> set[int]:
        """Tokens without which others, or any text at all, would be encoded in another way."""
        unknown = self.model.get("unk_token")
        needed = {self.tokens[unknown]} if unknown in self.tokens else set()
        return needed | {number for token, number in self.tokens.items() if _BYTE_TOKEN.fullmatch(token)}

    def closed(self, kept: Set[int]) -> set[int]:
        """Returns the tokens that must stay so that the given ones can."""
        return set(kept)

    @abc.abstractmethod
    def reduced(self, kept: Sequence[int]) -> dict[str, Any]:
        """Returns the part ``model`` with these tokens alone, numbered in this order."""


class _Table(Kind):
    """Kinds whose ``vocab`` is an object."""

    def reduced(self, kept: Sequence[int]) -> dict[str, Any]:
        """See :meth:`Kind.reduced`."""
        names = {number: token for token, number in self.tokens.items()}
        return {**self.model, "vocab": {names[number]: place for place, number in enumerate(kept)}}


class WordLevel(_Table):
    """One token a word; others are unknown."""

    name: ClassVar[str] = "WordLevel"


class WordPiece(_Table):
    """The longest token that fits, again and again."""

    name: ClassVar[str] = "WordPiece"

    def text_of(self, token: str) -> str:
        """See :meth:`Kind.text_of`."""
        return token.removeprefix(str(self.model.get("continuing_subword_prefix", "##"))) or token


class Bpe(_Table):
    """Pairs of tokens that are merged in a fixed order."""

    name: ClassVar[str] = "BPE"

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__(model)
        self._prefix = str(model.get("continuing_subword_prefix") or "")
        self._suffix = str(model.get("end_of_word_suffix") or "")
        # Older files write a merge as one text.
        self._merges = [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in model["merges"]]
        if any(len(pair) != 2 for pair in self._merges):
            raise FormatError("tokenizer.json is damaged: a merge should be of two tokens")

    def text_of(self, token: str) -> str:
        """See :meth:`Kind.text_of`."""
        return token.removeprefix(self._prefix).removesuffix(self._suffix) or token

    def _merged(self, pair: tuple[str, ...]) -> str:
        return pair[0] + pair[1][len(self._prefix) :]

    def closed(self, kept: Set[int]) -> set[int]:
        """See :meth:`Kind.closed`."""
        parts: dict[int, list[tuple[str, ...]]] = {}
        for pair in self._merges:
            result = self.tokens.get(self._merged(pair))
            if result is not None:
                parts.setdefault(result, []).append(pair)
        found, waiting = set(kept), list(kept)
        while waiting:
            for pair in parts.get(waiting.pop(), ()):
                new = {self.tokens[token] for token in pair if token in self.tokens} - found
                found |= new
                waiting += new
        return found

    def reduced(self, kept: Sequence[int]) -> dict[str, Any]:
        """See :meth:`Kind.reduced`."""
        model = super().reduced(kept)
        there = model["vocab"].keys()
        pairs = [pair for pair in self._merges if {*pair, self._merged(pair)} <= there]
        return {**model, "merges": [list(pair) for pair in pairs]}


class Unigram(Kind):
    """The segmentation of largest sum of scores."""

    name: ClassVar[str] = "Unigram"

    def _tokens(self) -> dict[str, int]:
        return {str(token): number for number, (token, _) in enumerate(self.model["vocab"])}

    @property
    def always(self) -> set[int]:
        """See :attr:`Kind.always`."""
        entries = self.model["vocab"]
        least = min(range(len(entries)), key=lambda number: float(entries[number][1]))
        unknown = self.model.get("unk_id")
        return super().always | {least} | (set() if unknown is None else {int(unknown)})

    def reduced(self, kept: Sequence[int]) -> dict[str, Any]:
        """See :meth:`Kind.reduced`."""
        unknown = self.model.get("unk_id")
        return {
            **self.model,
            "vocab": [self.model["vocab"][number] for number in kept],
            "unk_id": None if unknown is None else list(kept).index(unknown),
        }


def kind_of_model(model: dict[str, Any], path: Path) -> Kind:
    """Returns the tokens of the part ``model`` of ``tokenizer.json``.

    Raises:
        UnsupportedError: If the tokenizer is of another kind.
        FormatError: If the part is damaged.
    """
    kinds: Iterable[type[Kind]] = (WordPiece, Bpe, Unigram, WordLevel)
    for kind in kinds:
        if model.get("type") == kind.name:
            try:
                return kind(model)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"the tokenizer in {path} is damaged: no tokens can be read ({error!r})") from error
    known = ", ".join(kind.name for kind in kinds)
    raise UnsupportedError(
        f"the tokenizer in {path} is of the kind {model.get('type')!r}, whose vocabulary is not pruned; {known} are"
    )
