"""The structures and functions of ``edgeq.h`` for generating text."""

from __future__ import annotations

import ctypes
import functools

from edgeq.targets.runtime.native import TEXTS, Functions, declare

FINISHES = ("length", "end", "length", "context", "stop")
"""Why a text ended, by number; the first stands for a text that was not made to its end."""
_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_int32 = ctypes.c_int32
_int64 = ctypes.c_int64


class GenerationOptions(ctypes.Structure):
    """``edgeq_generation``."""

    _fields_ = (
        ("size", _size),
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("repetition_penalty", ctypes.c_double),
        ("length_penalty", ctypes.c_double),
        ("top_k", _int64),
        ("seed", _int64),
        ("beams", _int64),
        ("no_repeat_ngram_size", _int64),
        ("min_new_tokens", _int64),
        ("max_new_tokens", _int64),
        ("early_stopping", _int32),
        ("ignore_end", _int32),
        ("batch", _int64),
        ("stop", ctypes.POINTER(ctypes.c_char_p)),
        ("stop_count", _size),
    )


class PieceRecord(ctypes.Structure):
    """``edgeq_piece``."""

    _fields_ = (
        ("index", _size),
        ("token", _int64),
        ("text", _pointer),
        ("text_size", _size),
        ("logits", _pointer),
        ("finish", _int32),
        ("reserved", _int32),
    )


class Generated(ctypes.Structure):
    """``edgeq_generated``."""

    _fields_ = (
        ("ids", ctypes.POINTER(_int64)),
        ("id_count", _size),
        ("text", _pointer),
        ("text_size", _size),
        ("prompt_tokens", _size),
        ("score", ctypes.c_double),
        ("seconds", ctypes.c_double),
        ("finish", _int32),
        ("reserved", _int32),
    )


_FUNCTIONS: Functions = {
    "edgeq_generate_start": (_int32, _pointer, TEXTS, _size, ctypes.POINTER(GenerationOptions)),
    "edgeq_generate_open": (_int32, _pointer, _int64),
    "edgeq_generate_add": (_int32, _pointer, TEXTS, ctypes.POINTER(GenerationOptions), ctypes.POINTER(_size)),
    "edgeq_generate_drop": (_int32, _pointer, _size),
    # Of a pointer and the place of a PieceRecord: to have them checked for each token takes longer than to call.
    "edgeq_generate_next": (_int32,),
    "edgeq_generate_result": (_int32, _pointer, _size, ctypes.POINTER(Generated)),
}


@functools.cache
def with_generation(library: ctypes.CDLL) -> ctypes.CDLL:
    """Returns a library whose functions that generate text may be called."""
    declare(library, _FUNCTIONS)
    return library
