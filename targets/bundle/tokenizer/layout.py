"""The layout of ``tokenizer.bin``, which ``targets/libedgeq/library/tokenizer_table.h`` describes too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from edgeq.targets.bundle.tokenizer.characters import matching
from edgeq.targets.bundle.tokenizer.charsmap import cluster_sets, split_charsmap
from edgeq.targets.bundle.tokenizer.frames import Frame
from edgeq.targets.bundle.tokenizer.steps import Steps

MAGIC = b"EQTOKEN3"
WORD_PIECES, BYTE_PAIRS, WHOLE_WORDS, UNIGRAM, CHARACTER_PAIRS, SENTENCE_PIECES = range(6)
"""Kinds of models: WordPiece, byte-level BPE, WordLevel, Unigram, BPE on characters, Unigram of sentencepiece."""
LEFT, RIGHT, SINGLE_WORD, NORMALIZED, BEGINS, ENCLOSES = 1, 2, 4, 8, 16, 32
"""Flags of added tokens: take space before or after, stand alone only, are looked for in normalized text, at the
beginning only, or are whatever stands between the two halves of their text."""
DROPS_ALL_SPACE = 2
"""Of :attr:`ModelSettings.drops_first_space`: all at both ends of a text that is written."""
MARK = "\u2581"
"""What SentencePiece writes for a space."""
UNKNOWN_PENALTY = 10.0
"""How much less than the least likely token a character that is none counts, with Unigram."""

Rows = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """How words become tokens; see ``TokenizerSettings`` of the header."""

    kind: int
    unknown: int
    longest_word: int = 0
    whole_words_first: bool = False
    byte_fallback: bool = False
    fuses_unknown: bool = False
    drops_first_space: int = 0
    unknown_score: float = 0.0


@dataclasses.dataclass(frozen=True)
class TokenizerFile:
    """Everything that the file holds; texts are places and sizes in the strings of ``steps``.

    Attributes:
        steps: What is done to a text, with patterns, sets of characters and strings.
        model: How words become tokens.
        tokens: Text of each token by number, for models that write.
        rows: Words, pieces inside words, merges, single bytes.
        scores: Of the words; empty for models that have none.
        added: Tokens that are looked for in texts before anything else.
        roles: Tokens with a part to play.
        names: Name of each token; empty if nobody asks for them.
        special: Tokens that are left out of texts, sorted.
        single: What a row of one text holds.
        pair: What a row of two texts holds; empty if there is no such row.
        joins: How names of tokens become text.
        lower: Letters in lower case; empty if nobody asks for them.
    """

    steps: Steps
    model: ModelSettings
    tokens: Rows
    rows: tuple[Rows, Rows, Rows, Rows]
    scores: Sequence[float]
    added: Rows
    roles: Sequence[int]
    names: Rows
    special: Sequence[int]
    single: Frame
    pair: Frame
    joins: Rows
    lower: Rows

    def to_bytes(self) -> bytes:
        """Returns the contents of the file."""
        steps = self.steps
        settings = self._settings()  # adds sets of characters
        maps = [(one.first, one.last, one.kind, *steps.add_string(one.text.encode())) for one in steps.mappings]
        trie, texts = split_charsmap(steps.charsmap) if steps.charsmap else (np.zeros(0, np.uint32), b"")
        first_ranges = np.cumsum([0, *(len(members) for members in steps.program.sets)]).tolist()
        return _file(
            [
                _words([settings]),
                b"",
                b"",
                bytes(steps.strings),
                _words(self.tokens),
                *(_words(part) for part in self.rows),
                _words(list(zip(first_ranges, map(len, steps.program.sets), strict=False))),
                _words([pair for members in steps.program.sets for pair in members]),
                _words([steps.program.words]),
                _words(steps.normalizers),
                _words(steps.splitters),
                _words(maps),
                _words(steps.combining),
                _words(self.added),
                _words([trie.tolist()]),
                texts,
                _words([_halves(self.scores)]),
                _words([self.roles]),
                _words(self.names),
                _words([self.special]),
                _words(self.single),
                _words(self.pair),
                _words(self.joins),
                _words(self.lower),
                _words(steps.compositions),
            ]
        )

    def _settings(self) -> list[int]:
        program, model = self.steps.program, self.model
        spaces, words = (program.add_set(matching(source)) for source in (r"\s", r"\w"))
        clusters = [program.add_set(members) for members in cluster_sets()] if self.steps.charsmap else [spaces] * 3
        return [
            model.kind,
            model.unknown,
            model.longest_word,
            int(model.whole_words_first),
            spaces,
            words,
            int(model.byte_fallback),
            int(model.fuses_unknown),
            model.drops_first_space,
            *_halves([model.unknown_score]),
            *clusters,
        ]


def _file(sections: list[bytes]) -> bytes:
    """Puts sections behind a table of their places and sizes."""
    place = len(MAGIC) + 8 * len(sections)
    header, body = [], bytearray()
    for section in sections:
        header += [place + len(body), len(section)]
        body += section + bytes(-len(section) % 4)
    return MAGIC + _words([header]) + bytes(body)


def _words(rows: Iterable[Sequence[int]]) -> bytes:
    return np.array([word for row in rows for word in row], "<u4").tobytes()


def _halves(numbers: Sequence[float]) -> list[int]:
    """Numbers of 64 bits as two words each."""
    return np.array(numbers, "<f8").view("<u4").tolist()
