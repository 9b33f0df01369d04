"""What the package tokenizers makes of every character, found by asking it.

Its Unicode tables come from several libraries of different Unicode versions, so no table of ours would agree
with all of them. Asking costs under a second a question, once for each bundle.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Ranges = tuple[tuple[int, int], ...]
"""Code points as sorted pairs of first and last."""

# Asked for one by one, and where one stands for all up to the next: beyond these planes nothing is assigned.
_ASKED = (range(0xD800), range(0xE000, 0x33480), range(0xE0000, 0xE1000))
_ALIKE = (
    range(0x33480, 0xE0000),
    range(0xE1000, 0xF0000),
    range(0xF0000, 0xFFFFE),
    range(0xFFFFE, 0x100000),
    range(0x100000, 0x10FFFE),
    range(0x10FFFE, 0x110000),
)
_BLOCK = 4096
_HANGUL = range(0xAC00, 0xD7A4)
PAD, TEXT, DECOMPOSE = range(3)
"""Kinds of :class:`Mapping`: spaces around the character, another text, or a Hangul syllable's parts."""


@dataclasses.dataclass(frozen=True)
class Mapping:
    """What normalizing makes of the characters from ``first`` to ``last``; ``text`` is for the kind ``TEXT``."""

    first: int
    last: int
    kind: int
    text: str = ""


@functools.lru_cache(maxsize=64)
def matching(pattern: str) -> Ranges:
    """Returns the characters that a regular expression for one character matches."""
    from tokenizers import Regex, pre_tokenizers

    return _joined(sorted(_removed(pre_tokenizers.Split(Regex(pattern), "removed"))))


def _removed(splitter: Any) -> Iterator[tuple[int, int]]:
    """First and last code point of each stretch that a pre-tokenizer drops."""
    for block in _blocks():
        text = "".join(map(chr, block))
        at = 0
        for _, (start, end) in splitter.pre_tokenize_str(text):
            if at < start:
                yield block[at], block[start - 1]
            at = end
        if at < len(block):
            yield block[at], block[-1]
    for alike in _ALIKE:
        if not splitter.pre_tokenize_str(chr(alike[0])):
            yield alike[0], alike[-1]


def separating(splitter: Any) -> tuple[Ranges, Ranges]:
    """Returns the characters that a pre-tokenizer drops between letters, and those that it makes pieces of their own.

    Args:
        splitter: A pre-tokenizer of ``tokenizers`` that decides character by character.
    """
    dropped: list[int] = []
    alone: list[int] = []
    for block in (*_blocks(), *([alike[0]] for alike in _ALIKE)):
        for code in _unlike(block, lambda part: len(splitter.pre_tokenize_str(f"a{part}a")) == 1):
            pieces = len(splitter.pre_tokenize_str(f"a{chr(code)}a"))
            (dropped if pieces == 2 else alone).append(code)
    return ranges(_with_alike(dropped)), ranges(_with_alike(alone))


def mappings(normalize: Callable[[str], str]) -> list[Mapping]:
    """Returns what a normalizer that works character by character makes of each, where it changes it."""
    found: list[Mapping] = []
    for block in (*_blocks(), *([alike[0]] for alike in _ALIKE)):
        for part, kind, text in _images(block, normalize):
            last = next((alike[-1] for alike in _ALIKE if alike[0] == part[0]), part[-1])
            if found and found[-1].last + 1 == part[0] and (found[-1].kind, found[-1].text) == (kind, text):
                found[-1] = Mapping(found[-1].first, last, kind, text)
            else:
                found.append(Mapping(part[0], last, kind, text))
    return sorted(found, key=lambda mapping: mapping.first)


def _images(block: Sequence[int], normalize: Callable[[str], str]) -> Iterator[tuple[Sequence[int], int, str]]:
    """Parts of a block that become something else, each with its kind and text."""
    characters = [chr(code) for code in block]
    image = normalize("".join(characters))
    if image == "".join(characters):
        return
    if image == "".join(f" {character} " for character in characters):
        yield block, PAD, ""
    elif image == "":
        yield block, TEXT, ""
    elif block[0] in _HANGUL and block[-1] in _HANGUL and image == unicodedata.normalize("NFD", "".join(characters)):
        yield block, DECOMPOSE, ""
    elif len(block) == 1:
        yield block, TEXT, image
    else:
        for part in _parts(block):
            yield from _images(part, normalize)


def combining_classes(normalize: Callable[[str], str]) -> list[tuple[int, int]]:
    """Returns the marks that a normalizer puts into canonical order, with their classes; none if it does not."""
    marks = [chr(code) for code in range(0x33480) if unicodedata.combining(chr(code))]
    order = {mark: unicodedata.combining(mark) for mark in marks if normalize(mark) == mark}

    def swaps(first: str, second: str) -> bool:
        return order[first] > order[second] and normalize(first + second) == second + first

    one_of_each = {order[mark]: mark for mark in reversed(order)}.values()
    anchors = next(((high, low) for high in one_of_each for low in one_of_each if swaps(high, low)), None)
    if anchors is None:
        return []
    # A mark that is newer than the library's tables is not moved.
    high, low = anchors
    return [(ord(mark), order[mark]) for mark in order if mark in anchors or swaps(mark, low) or swaps(high, mark)]


@functools.cache
def compositions() -> tuple[tuple[int, int, int], ...]:
    """Returns the pairs of characters that Unicode's normal form C makes one of, with that one, sorted; no Hangul."""
    from tokenizers import normalizers

    compose = normalizers.NFC().normalize_str
    found = []
    for code in _code_points():
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            first, second = (int(part, 16) for part in parts)
            if compose(chr(first) + chr(second)) == chr(code):
                found.append((first, second, code))
    return tuple(sorted(found))


def _code_points() -> Iterator[int]:
    return (code for codes in _ASKED for code in codes)


def ranges(codes: Iterable[int]) -> Ranges:
    """Returns code points as ranges."""
    return _joined((code, code) for code in sorted(codes))


def _joined(stretches: Iterable[tuple[int, int]]) -> Ranges:
    """Joins stretches in ascending order where one goes on after the other."""
    found: list[tuple[int, int]] = []
    for first, last in stretches:
        if found and found[-1][1] + 1 == first:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def _blocks() -> Iterator[range]:
    for asked in _ASKED:
        for start in range(asked.start, asked.stop, _BLOCK):
            yield range(start, min(start + _BLOCK, asked.stop))


def _parts(block: Sequence[int]) -> Iterator[Sequence[int]]:
    size = max(len(block) // 16, 1)
    return (block[start : start + size] for start in range(0, len(block), size))


def _unlike(block: Sequence[int], is_plain: Callable[[str], bool]) -> Iterator[int]:
    """Code points of a block that are not plain, found by cutting up what is not plain as a whole."""
    if is_plain("".join(map(chr, block))):
        return
    if len(block) == 1:
        yield block[0]
        return
    for part in _parts(block):
        yield from _unlike(part, is_plain)


def _with_alike(codes: list[int]) -> Iterator[int]:
    for code in codes:
        yield from next((alike for alike in _ALIKE if alike[0] == code), (code,))
