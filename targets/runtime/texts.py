"""Texts and token ids as libedgeq takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime import native

Text = str | tuple[str, str]
"""A text, or a pair of texts that the model reads together."""


class Texts(NamedTuple):
    """Texts as the library takes them.

    Attributes:
        records: Array of ``edgeq_text``.
        kept: What the array points to.
    """

    records: Any
    kept: list[Any]


def to_texts(given: Sequence[str | Sequence[int]], what: str, *, first: int = 1) -> Texts:
    """Returns texts as the library takes them.

    Args:
        given: Texts, or token ids of texts.
        what: What messages call one, such as ``prompt``; its number follows.
        first: Number of the first one.

    Raises:
        UsageError: If one is neither a text nor token ids, or no valid Unicode.
    """
    array = (native.Text * len(given))()
    kept: list[Any] = []
    for number, (item, record) in enumerate(zip(given, array, strict=True), first):
        name = f"{what} {number}"
        record.name = name.encode()
        if isinstance(item, str):
            data = to_utf8(item, what, number)
            kept.append(data)
            record.text, record.size = data, len(data)
        else:
            ids = _ids(item, name)
            kept.append(ids)
            record.ids = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
            record.id_count = ids.size
    return Texts(array, kept)


def to_pairs(given: Sequence[Text], *, first: int = 1) -> tuple[Texts, Any]:
    """Returns texts as the library takes them, and those that are read with them.

    Args:
        given: Texts, or pairs of them.
        first: Number of the first one.

    Returns:
        The texts, and an array of ``edgeq_text`` of the second ones, None if there is no pair.

    Raises:
        UsageError: If one is neither, or no valid Unicode.
    """
    array, seconds = (native.Text * len(given))(), None
    kept: list[Any] = []
    for index, item in enumerate(given):
        if isinstance(item, str):
            data = to_utf8(item, "text", first + index)
        else:
            one, other = _parts(item, f"text {first + index}")
            data, second = to_utf8(one, "text", first + index), to_utf8(other, "text", first + index)
            seconds = seconds or (native.Text * len(given))()
            seconds[index].text, seconds[index].size = second, len(second)
            kept.append(second)
        record = array[index]
        record.text, record.size = data, len(data)
        kept.append(data)
    return Texts(array, kept), seconds


def _parts(text: Any, what: str) -> tuple[str, str]:
    if not isinstance(text, tuple | list) or len(text) != 2 or not all(isinstance(part, str) for part in text):
        raise UsageError(f"{what} should be a text or a pair of texts, found {text!r:.60}")
    return text[0], text[1]


def to_utf8(text: str, what: str, number: int) -> bytes:
    """Returns the bytes of a text.

    Raises:
        UsageError: If it is no valid Unicode.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {number} is not valid Unicode (an argument that is not UTF-8?)") from error


def _ids(given: Any, name: str) -> np.ndarray:
    try:
        ids = np.asarray(given)
    except (ValueError, OverflowError):
        ids = np.empty(0, object)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise UsageError(f"{name} must be a text or a list of token ids, found {given!r:.60}")
    if ids.size and (int(ids.min()) < -(1 << 63) or int(ids.max()) >= 1 << 63):
        raise UsageError(f"{name} holds an id outside the vocabulary: {ids.max()}")
    return np.ascontiguousarray(ids, np.int64)
