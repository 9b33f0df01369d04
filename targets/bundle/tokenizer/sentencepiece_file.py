"""Reads the model file of SentencePiece: its tokens with scores, and how it changes a text before.

The file is a protocol buffer (``sentencepiece_model.proto``); the few fields that decide tokens are read, and what asks
for something else is refused.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

from edgeq.errors import FormatError, UnsupportedError
from edgeq.reading import read_bytes

_LARGEST = 1 << 28
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_UNIGRAM = 1
_NAMES = {2: "BPE", 3: "WORD", 4: "CHAR"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclasses.dataclass(frozen=True)
class SentencePieceModel:
    """What such a file says.

    Attributes:
        scores: Score of each token that texts are cut into, float32 values.
        charsmap: The map of texts; empty if there is none.
        adds_space: Whether a text gets a space in front.
        drops_spaces: Whether spaces at the ends go, and several become one.
    """

    scores: dict[str, float]
    charsmap: bytes
    adds_space: bool
    drops_spaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads a model file.

    Raises:
        UsageError: If it cannot be read.
        FormatError: If it is damaged.
        UnsupportedError: If it is not a Unigram model, or changes texts in ways that are not known.
    """
    try:
        fields = list(_fields(read_bytes(path, largest=_LARGEST)))
        pieces = [_piece(value) for number, value in fields if number == 1 and isinstance(value, bytes)]
        trainer, normalizer = (dict(_fields(_last(fields, number))) for number in (2, 3))
    except (ValueError, struct.error, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is damaged: {error}; get it again") from None
    kind = trainer.get(3, _UNIGRAM)
    if kind != _UNIGRAM:
        raise UnsupportedError(f"SentencePiece model of kind {_NAMES.get(_number(kind), kind)}")
    kinds = {kind for _, _, kind in pieces}
    for asked, what in (
        (trainer.get(24), "treat_whitespace_as_suffix"),
        (trainer.get(35), "byte_fallback"),
        (not normalizer.get(5, 1), "spaces that are not escaped"),
        (_USER_DEFINED in kinds, "user-defined symbols"),
        (_BYTE in kinds, "tokens for bytes"),
    ):
        if asked:
            raise UnsupportedError(f"SentencePiece model with {what}")
    scores = {text: score for text, score, kind in pieces if kind == _NORMAL}
    if not scores:
        raise FormatError(f"{path} is damaged: it holds no tokens; get it again")
    charsmap = normalizer.get(2, b"")
    return SentencePieceModel(
        scores,
        charsmap if isinstance(charsmap, bytes) else b"",
        adds_space=bool(normalizer.get(3, 1)),
        drops_spaces=bool(normalizer.get(4, 1)),
    )


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    text, score = fields.get(1, b""), fields.get(2, 0.0)
    if not isinstance(text, bytes) or not isinstance(score, float):
        raise ValueError("a token has fields of other types")
    return text.decode("utf-8"), score, _number(fields.get(3, _NORMAL))


def _number(value: int | float | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a number has another type")
    return value


def _last(fields: list[tuple[int, int | float | bytes]], number: int) -> bytes:
    found = [value for one, value in fields if one == number]
    return found[-1] if found and isinstance(found[-1], bytes) else b""


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yields numbers and values of the fields of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise ValueError("a field is longer than the file")
            yield number, data[at : at + size]
            at += size
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            yield number, float(struct.unpack_from("<f" if kind == _FIXED32 else "<d", data, at)[0])
            at += size
        else:
            raise ValueError(f"a field has the unknown type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
