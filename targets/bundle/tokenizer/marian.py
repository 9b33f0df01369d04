"""Marian's tokenizer: SentencePiece cuts texts, and a vocabulary that both languages share numbers the tokens.

Opus-mt has no ``tokenizer.json``. What ``MarianTokenizer`` of transformers does with ``source.spm``, ``vocab.json`` and
a language code in front of a text (``>>fra<<``) is translated here. Texts that the model writes are its tokens joined.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.formats.json_file import read_json_object
from edgeq.formats.tokenizer_files import check_tokenizer_files
from edgeq.targets.bundle.tokenizer.charsmap import split_charsmap
from edgeq.targets.bundle.tokenizer.frames import FIRST, TOKEN
from edgeq.targets.bundle.tokenizer.layout import (
    BEGINS,
    DROPS_ALL_SPACE,
    ENCLOSES,
    MARK,
    SENTENCE_PIECES,
    UNKNOWN_PENALTY,
    ModelSettings,
    Rows,
    TokenizerFile,
)
from edgeq.targets.bundle.tokenizer.roles import NONE, tokenizer_settings
from edgeq.targets.bundle.tokenizer.sentencepiece_file import SentencePieceModel, read_sentencepiece
from edgeq.targets.bundle.tokenizer.steps import CHARSMAP, METASPACE, PREPEND, REPLACE, STRIP, Steps

MARIAN_VOCABULARY = "vocab.json"
MARIAN_SOURCE = "source.spm"
MARIAN_FILES = (MARIAN_VOCABULARY, MARIAN_SOURCE)
"""Files without which there is no such tokenizer."""
_CODE = ">>", "<<"
_ROLES = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}


def marian_tokenizer(folder: Path, *, names: bool) -> TokenizerFile:
    """Translates the tokenizer of a folder.

    Args:
        folder: Holds :data:`MARIAN_FILES`, and possibly a ``tokenizer_config.json``.
        names: Keep the names of tokens.

    Raises:
        FormatError: If a file is damaged, or the vocabulary lacks a token with a part to play.
        UnsupportedError: If a file asks for something that libedgeq does not do.
    """
    check_tokenizer_files(folder)
    vocabulary: dict[str, int] = read_json_object(folder / MARIAN_VOCABULARY)
    unknown, end, padding = _role_names(folder, vocabulary)
    pieces = read_sentencepiece(folder / MARIAN_SOURCE)
    steps = Steps()
    _add_normalizing(pieces, steps)
    known = [(text, score) for text, score in sorted(pieces.scores.items(), key=lambda item: item[0].encode("utf-8"))]
    words = [(*_string(steps, text), vocabulary.get(text, vocabulary[unknown])) for text, _ in known]
    others = sorted((text.encode("utf-8"), number) for text, number in vocabulary.items() if text not in pieces.scores)
    special = {text: vocabulary[text] for text in (unknown, end, padding)}
    by_number = {number: text for text, number in vocabulary.items()}
    numbers = range(max(by_number, default=-1) + 1)
    return TokenizerFile(
        steps=steps,
        model=ModelSettings(
            kind=SENTENCE_PIECES,
            unknown=vocabulary[unknown],
            fuses_unknown=True,
            drops_first_space=DROPS_ALL_SPACE,
            unknown_score=_float32(min(pieces.scores.values()) - UNKNOWN_PENALTY),
        ),
        tokens=[
            _string(steps, "" if by_number.get(number) in special else by_number.get(number, "").replace(MARK, " "))
            for number in numbers
        ],
        rows=(words, [(*steps.add_string(text), number) for text, number in others if text], [], []),
        scores=[score for _, score in known],
        added=_added(steps, vocabulary, special, vocabulary[unknown]),
        roles=[NONE, vocabulary[unknown], vocabulary[padding], NONE, *[0] * 6],
        names=[_string(steps, by_number.get(number, "")) for number in numbers] if names else [],
        special=sorted(special.values()),
        single=[(FIRST, 0, 0), (TOKEN, vocabulary[end], 0)],
        pair=[],
        joins=[],
        lower=[],
    )


def _role_names(folder: Path, vocabulary: dict[str, int]) -> list[str]:
    """Names of the unknown token, the one that ends texts, and the one that fills up."""
    settings = tokenizer_settings(folder)
    if settings.get("separate_vocabs"):
        raise UnsupportedError("a Marian tokenizer with a vocabulary for each language")
    if settings.get("sp_model_kwargs"):
        raise UnsupportedError("a Marian tokenizer with settings of SentencePiece (sp_model_kwargs)")
    found = []
    for key, usual in _ROLES.items():
        token: Any = settings.get(key, usual)
        token = token.get("content") if isinstance(token, dict) else token
        if token not in vocabulary:
            raise FormatError(f"{folder / MARIAN_VOCABULARY} lacks {key} {token!r}; get the checkpoint again")
        found.append(token)
    return found


def _add_normalizing(pieces: SentencePieceModel, steps: Steps) -> None:
    """Maps texts, joins spaces, and writes the mark for each and in front, as SentencePiece does."""
    if pieces.charsmap:
        steps.charsmap = pieces.charsmap
        if b"  " in split_charsmap(pieces.charsmap)[1]:
            raise UnsupportedError("SentencePiece model that makes several spaces of one character")
        steps.normalizers.append((CHARSMAP, 1, 0, 0))
    if pieces.drops_spaces:
        steps.normalizers.append((REPLACE, steps.program.add_pattern(" {2,}"), *_string(steps, " ")))
        steps.normalizers.append((STRIP, 1, 1, steps.program.add_set(((ord(" "), ord(" ")),))))
    if pieces.adds_space:
        steps.normalizers.append((PREPEND, *_string(steps, MARK), 0))
    steps.splitters.append((METASPACE, *_string(steps, MARK), 0))


def _added(steps: Steps, vocabulary: dict[str, int], special: dict[str, int], unknown: int) -> Rows:
    """Special tokens, wherever they stand, and codes of languages in front of a text, unknown ones too."""
    opening, closing = _CODE
    codes = {text: number for text, number in vocabulary.items() if text.startswith(opening) and text.endswith(closing)}
    rows = [(*_string(steps, text), number, 0) for text, number in special.items()]
    rows += [(*_string(steps, text), number, BEGINS) for text, number in codes.items() if text != opening + closing]
    return [*rows, (*_string(steps, opening + closing), unknown, BEGINS | ENCLOSES)]


def _string(steps: Steps, text: str) -> tuple[int, int]:
    return steps.add_string(text.encode("utf-8"))


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
