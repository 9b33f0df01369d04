"""The normalizer of SentencePiece: a map from pieces of text to texts, and the clusters of characters that it looks at.

The package tokenizers looks up every grapheme cluster shorter than six bytes (the map matches its beginning), and
else every character. Where clusters begin depends on the Unicode tables of that package, so it is asked: with a map in
which every byte begins something, the number of texts that come back is the number of clusters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeq.errors import FormatError
from edgeq.targets.bundle.tokenizer.characters import Ranges, ranges

_MARK = "\u0301"
_ASKED = (range(1, 0xD800), range(0xE000, 0x33480), range(0xE0000, 0xE1000))
_HAS_LEAF, _OFFSET_SHIFT, _MOST, _TRIES = 1 << 8, 10, 1 << 21, 64


def split_charsmap(data: bytes) -> tuple[np.ndarray, bytes]:
    """Returns the two parts of a map: the units of its double array, uint32, and its texts, each ended by a zero byte.

    Raises:
        FormatError: If the parts do not fill the map.
    """
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or size > len(data) - 4 or (size < len(data) - 4 and data[-1] != 0):
        raise FormatError("the tokenizer's precompiled_charsmap is damaged: its sizes do not add up; export it again")
    return np.frombuffer(data[4 : 4 + size], "<u4"), data[4 + size :]


def make_charsmap(texts: Mapping[bytes, str]) -> bytes:
    """Returns a map as SentencePiece writes it.

    Args:
        texts: What becomes of each piece; no piece is empty or holds a zero byte.
    """
    places: dict[bytes, int] = {}
    blob = bytearray()
    for piece in sorted(texts):
        places[piece] = len(blob)
        blob += texts[piece].encode("utf-8") + b"\0"
    units = np.array(_double_array(places), "<u4").tobytes()
    return len(units).to_bytes(4, "little") + units + bytes(blob)


def _double_array(places: Mapping[bytes, int]) -> list[int]:
    """A double array of the form of Darts-clone: offset, whether a leaf follows, label; a leaf holds its place."""
    units: dict[int, int] = {0: 0}
    waiting: list[tuple[int, bytes]] = [(0, b"")]
    following: dict[bytes, set[int]] = {}
    for piece in places:
        for at in range(len(piece)):
            following.setdefault(piece[:at], set()).add(piece[at])
    bases: set[int] = set()  # two nodes with one base would share their children
    first_free = 1
    while waiting:
        node, prefix = waiting.pop()
        labels = sorted(following.get(prefix, ()))
        taken = [0, *labels] if prefix in places else labels
        base = first_free
        while base in bases or base ^ node >= _MOST or any(base ^ label in units for label in taken):
            base += 1
        bases.add(base)
        if base - first_free > _TRIES:
            first_free = base  # what lies before is too full to be looked through again
        units[node] |= (base ^ node) << _OFFSET_SHIFT
        if prefix in places:
            units[node] |= _HAS_LEAF
            units[base] = places[prefix]
        for label in labels:
            units[base ^ label] = label
            waiting.append((base ^ label, prefix + bytes([label])))
    # Whole blocks of 256, since readers look at every byte's place.
    return [units.get(index, 0) for index in range((max(units) // 256 + 1) * 256)]


@functools.cache
def cluster_sets() -> tuple[Ranges, Ranges, Ranges]:
    """Returns the characters that join the one before, those that join the one after, and those that nothing joins.

    Exact for clusters shorter than six bytes but for what follows an emoji that is joined to another one.
    """
    extends, prepends, controls = [], [], []
    for character in _characters():
        if _clusters(f"a{character}") == 1:
            extends.append(ord(character))
        if _clusters(f"{character}a") == 1:
            prepends.append(ord(character))
        if len(character.encode("utf-8")) < 4 and _clusters(character + _MARK) == 2:
            controls.append(ord(character))
    return ranges(extends), ranges(prepends), ranges(controls)


@functools.cache
def stripped() -> Ranges:
    """Returns the characters that the normalizer ``Strip`` takes from the ends of a text."""
    from tokenizers import normalizers

    strip = normalizers.Strip().normalize_str
    return ranges(ord(character) for character in _characters() if not strip(character))


def _characters() -> Iterator[str]:
    return (chr(code) for codes in _ASKED for code in codes)


@functools.cache
def _counter() -> Any:
    from tokenizers import normalizers

    return normalizers.Precompiled(make_charsmap({bytes([byte]): "Y" for byte in range(1, 256)})).normalize_str


def _clusters(text: str) -> int:
    return len(_counter()(text))
