"""The structures and functions of ``edgeq.h`` for tokens, tags, answers, fillings and ranks."""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from edgeq.targets.runtime.native import OPTIONS, READINGS, TEXTS, Functions, Reading, Text, check_texts, declare

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_int32 = ctypes.c_int32
_int64 = ctypes.c_int64


class Token(ctypes.Structure):
    """``edgeq_token``."""

    _fields_ = (
        ("id", _int64),
        ("type", _int32),
        ("sequence", _int32),
        ("start", _size),
        ("end", _size),
        ("start_byte", _size),
        ("end_byte", _size),
        ("word", _size),
    )


TOKEN = np.dtype(Token)
"""The same for arrays of tokens."""


class Row(ctypes.Structure):
    """``edgeq_row``."""

    _fields_ = (("tokens", ctypes.POINTER(Token)), ("count", _size))


class Encoding(ctypes.Structure):
    """``edgeq_encoding``."""

    _fields_ = (("rows", ctypes.POINTER(Row)), ("count", _size), ("reading", Reading))


class TagOptions(ctypes.Structure):
    """``edgeq_tag_options``."""

    _fields_ = (
        ("size", _size),
        ("ignored", ctypes.POINTER(ctypes.c_char_p)),
        ("ignored_count", _size),
        ("aggregation", _int32),
        ("reserved", _int32),
    )


class Entity(ctypes.Structure):
    """``edgeq_entity``."""

    _fields_ = (
        ("label", ctypes.c_char_p),
        ("word", _pointer),
        ("word_size", _size),
        ("score", ctypes.c_double),
        ("start", _size),
        ("end", _size),
        ("start_byte", _size),
        ("end_byte", _size),
        ("index", _size),
    )


class Entities(ctypes.Structure):
    """``edgeq_entities``."""

    _fields_ = (("items", ctypes.POINTER(Entity)), ("count", _size))


class AnswerOptions(ctypes.Structure):
    """``edgeq_answer_options``."""

    _fields_ = (
        ("size", _size),
        ("top_k", _int64),
        ("longest", _int64),
        ("may_be_none", _int32),
        ("splits_words", _int32),
    )


class Answer(ctypes.Structure):
    """``edgeq_answer``."""

    _fields_ = (
        ("text", _pointer),
        ("text_size", _size),
        ("score", ctypes.c_double),
        ("start", _size),
        ("end", _size),
        ("start_byte", _size),
        ("end_byte", _size),
    )


class Answers(ctypes.Structure):
    """``edgeq_answers``."""

    _fields_ = (("items", ctypes.POINTER(Answer)), ("count", _size))


class FillOptions(ctypes.Structure):
    """``edgeq_fill_options``."""

    _fields_ = (("size", _size), ("targets", ctypes.POINTER(Text)), ("target_count", _size), ("top_k", _int64))


class Filling(ctypes.Structure):
    """``edgeq_filling``."""

    _fields_ = (
        ("token", _int64),
        ("score", ctypes.c_double),
        ("text", _pointer),
        ("text_size", _size),
        ("sequence", _pointer),
        ("sequence_size", _size),
    )


class Fillings(ctypes.Structure):
    """``edgeq_fillings``."""

    _fields_ = (("items", ctypes.POINTER(Filling)), ("masks", _size), ("per_mask", _size))


class Ranked(ctypes.Structure):
    """``edgeq_ranked``."""

    _fields_ = (("index", _size), ("score", ctypes.c_double))


_FUNCTIONS: Functions = {
    "edgeq_encode": (_int32, _pointer, TEXTS, OPTIONS, ctypes.POINTER(Encoding)),
    "edgeq_tag": (_int32, _pointer, TEXTS, _size, OPTIONS, ctypes.POINTER(TagOptions), _pointer, READINGS),
    "edgeq_find_answers": (_int32, _pointer, TEXTS, _size, OPTIONS, ctypes.POINTER(AnswerOptions), _pointer, READINGS),
    "edgeq_fill": (_int32, _pointer, TEXTS, _size, OPTIONS, ctypes.POINTER(FillOptions), _pointer, READINGS),
    "edgeq_rank": (_int32, _pointer, TEXTS, TEXTS, _size, OPTIONS, ctypes.POINTER(Ranked), READINGS),
}


def tokens_of(row: Row) -> np.ndarray:
    """Returns the tokens of a row, as an array of their own."""
    size = row.count * TOKEN.itemsize
    return np.frombuffer(ctypes.string_at(row.tokens, size), TOKEN) if size else np.empty(0, TOKEN)


@functools.cache
def with_tasks(library: ctypes.CDLL) -> ctypes.CDLL:
    """Returns a library whose functions for tasks may be called.

    Raises:
        UnsupportedError: If it is of a version that had none.
    """
    check_texts(library)
    declare(library, _FUNCTIONS)
    return library
