"""libedgeq, the C library that every bundle carries: loaded from bytes whose digest was checked, and its interface.

The structures are those of ``edgeq.h``, version 1.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.reading import read_bytes

ABI_MAJOR = 1
MAX_RANK = 8
FINISHES = ("length", "end", "length", "context", "stop")
"""Why a text ended, by number; the first stands for a text that was not made to its end."""
MAIN, ENCODE = 0, 1
"""Numbers of the functions of a model."""
OK, FAILED, USAGE, DAMAGED, UNSUPPORTED, NO_MEMORY, BUSY, CANCELLED, END = range(9)
_ERRORS: dict[int, type[EdgeqError]] = {USAGE: UsageError, DAMAGED: FormatError, UNSUPPORTED: UnsupportedError}
_DTYPES = ("float32", "float16", "int64", "int32", "int16", "uint16", "int8", "uint8")
"""Element types, by their numbers."""
_LOCK = threading.Lock()
_LOADED: dict[str, ctypes.CDLL] = {}
"""Libraries of this process by SHA-256: bundles that carry the same one share it."""

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_int32 = ctypes.c_int32
_int64 = ctypes.c_int64


class Tensor(ctypes.Structure):
    """``edgeq_tensor``."""

    _fields_ = (
        ("type", _int32),
        ("rank", _int32),
        ("shape", _int64 * MAX_RANK),
        ("data", _pointer),
        ("bytes", _size),
    )


class OpenOptions(ctypes.Structure):
    """``edgeq_open_options``."""

    _fields_ = (
        ("size", _size),
        ("allocator", _pointer),
        ("variant", ctypes.c_char_p),
        ("threads", _int32),
        ("skip_digests", _int32),
        ("kernels", _pointer),
        ("kernel_count", _size),
        ("verify_all", _int32),
        ("reserved", _int32),
    )


class Info(ctypes.Structure):
    """``edgeq_info``."""

    _fields_ = (
        ("task", ctypes.c_char_p),
        ("architecture", ctypes.c_char_p),
        ("variant", ctypes.c_char_p),
        ("pooling", ctypes.c_char_p),
        ("normalize", _int32),
        ("has_tokenizer", _int32),
        ("longest", _int64),
        ("context", _int64),
        ("source_context", _int64),
        ("vocabulary", _int64),
        ("width", _int64),
        ("labels", ctypes.POINTER(ctypes.c_char_p)),
        ("label_count", _size),
    )


class SessionOptions(ctypes.Structure):
    """``edgeq_session_options``."""

    _fields_ = (
        ("size", _size),
        ("allocator", _pointer),
        ("threads", _int32),
        ("processor_count", _int32),
        ("processors", _pointer),
        ("parallel_for", _pointer),
        ("parallel_context", _pointer),
    )


class KernelTimeRecord(ctypes.Structure):
    """``edgeq_kernel_time``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("step", _size),
        ("seconds", ctypes.c_double),
        ("bytes", ctypes.c_uint64),
        ("weight_bytes", ctypes.c_uint64),
    )


class Text(ctypes.Structure):
    """``edgeq_text``."""

    _fields_ = (
        ("text", ctypes.c_char_p),
        ("size", _size),
        ("ids", ctypes.POINTER(_int64)),
        ("id_count", _size),
        ("name", ctypes.c_char_p),
    )


class TextOptions(ctypes.Structure):
    """``edgeq_text_options``."""

    _fields_ = (
        ("size", _size),
        ("seconds", ctypes.POINTER(Text)),
        ("prompt_name", ctypes.c_char_p),
        ("batch", _int64),
        ("token_budget", _int64),
        ("max_tokens", _int64),
        ("overlap", _int64),
        ("on_long", _int32),
        ("truncation", _int32),
        ("first_number", _int64),
    )


class Reading(ctypes.Structure):
    """``edgeq_reading``."""

    _fields_ = (("tokens", _size), ("rows", _size), ("is_cut", _int32), ("reserved", _int32))


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


Watch = ctypes.CFUNCTYPE(None, _pointer, ctypes.POINTER(KernelTimeRecord))
"""What :func:`edgeq_watch_kernels` calls."""

_tensors, _texts = ctypes.POINTER(Tensor), ctypes.POINTER(Text)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "edgeq_abi_version": (ctypes.c_uint32,),
    "edgeq_cores": (_int32,),
    "edgeq_open": (_int32, ctypes.c_char_p, ctypes.POINTER(OpenOptions), ctypes.POINTER(_pointer)),
    "edgeq_close": (None, _pointer),
    "edgeq_error": (ctypes.c_char_p, _pointer),
    "edgeq_model_info": (ctypes.POINTER(Info), _pointer),
    "edgeq_session_open": (_int32, _pointer, ctypes.POINTER(SessionOptions), ctypes.POINTER(_pointer)),
    "edgeq_session_close": (None, _pointer),
    "edgeq_session_error": (ctypes.c_char_p, _pointer),
    "edgeq_reset": (_int32, _pointer, _int64),
    "edgeq_state": (_int32, _pointer, _size, _tensors),
    "edgeq_run": (_int32, _pointer, _int32, _tensors, _tensors),
    "edgeq_watch_kernels": (_int32, _pointer, Watch, _pointer),
    "edgeq_generate_start": (_int32, _pointer, _texts, _size, ctypes.POINTER(GenerationOptions)),
    "edgeq_generate_open": (_int32, _pointer, _int64),
    "edgeq_generate_add": (_int32, _pointer, _texts, ctypes.POINTER(GenerationOptions), ctypes.POINTER(_size)),
    "edgeq_generate_drop": (_int32, _pointer, _size),
    "edgeq_generate_next": (_int32, _pointer, ctypes.POINTER(PieceRecord)),
    "edgeq_generate_result": (_int32, _pointer, _size, ctypes.POINTER(Generated)),
}
"""Result and arguments of each function that is used."""
_options = ctypes.POINTER(TextOptions)
_readings = ctypes.POINTER(Reading)
_TEXT_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "edgeq_cancel": (None, _pointer),
    "edgeq_encode": (_int32, _pointer, _texts, _options, ctypes.POINTER(Encoding)),
    "edgeq_detokenize": (
        _int32, _pointer, ctypes.POINTER(_int64), _size, ctypes.POINTER(_pointer), ctypes.POINTER(_size),
    ),
    "edgeq_embed_texts": (_int32, _pointer, _texts, _size, _options, _pointer, _readings),
    "edgeq_classify_texts": (_int32, _pointer, _texts, _size, _options, _pointer, _pointer, _readings),
    "edgeq_tag": (_int32, _pointer, _texts, _size, _options, ctypes.POINTER(TagOptions), _pointer, _readings),
    "edgeq_find_answers": (
        _int32, _pointer, _texts, _size, _options, ctypes.POINTER(AnswerOptions), _pointer, _readings,
    ),
    "edgeq_fill": (_int32, _pointer, _texts, _size, _options, ctypes.POINTER(FillOptions), _pointer, _readings),
    "edgeq_rank": (_int32, _pointer, _texts, _texts, _size, _options, ctypes.POINTER(Ranked), _readings),
}  # fmt: skip
"""The same of those that libraries of the first version of the interface lack."""
TEXTS_SINCE = 1
"""Minor version of the interface that brought them."""


def load_native(path: Path, digest: str) -> ctypes.CDLL:
    """Checks a bundle's library and loads it, once for each digest.

    Args:
        path: The library.
        digest: SHA-256 that it must have.

    Raises:
        FormatError: If it has another digest, or is no such library.
        UnsupportedError: If its interface is of another version.
    """
    try:
        data = read_bytes(path)
    except EdgeqError as error:
        raise FormatError(f"{error}; copy the bundle again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise FormatError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., the manifest says {digest[:12]}...; "
            "copy or compile the bundle again"
        )
    with _LOCK:
        if digest not in _LOADED:
            _LOADED[digest] = _loaded(path, data)
        return _LOADED[digest]


def _loaded(path: Path, data: bytes) -> ctypes.CDLL:
    try:
        library = _open(data)
        _declare(library, _FUNCTIONS)
        minor = library.edgeq_abi_version() & 0xFFFF
        if minor >= TEXTS_SINCE:
            _declare(library, _TEXT_FUNCTIONS)
    except (OSError, AttributeError) as error:
        raise FormatError(f"{path} cannot be loaded ({error}); compile the bundle again") from error
    major = library.edgeq_abi_version() >> 16
    if major != ABI_MAJOR:
        raise UnsupportedError(
            f"{path} has version {major} of the interface, this edgeq uses {ABI_MAJOR}; compile the bundle again"
        )
    return library


def _declare(library: ctypes.CDLL, functions: dict[str, tuple[Any, ...]]) -> None:
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def check_texts(library: ctypes.CDLL) -> None:
    """Raises :class:`UnsupportedError` if a library has not the functions that read texts for Python."""
    minor = library.edgeq_abi_version() & 0xFFFF
    if minor < TEXTS_SINCE:
        raise UnsupportedError(
            f"the bundle's libedgeq has version {ABI_MAJOR}.{minor} of the interface, texts in Python need "
            f"{ABI_MAJOR}.{TEXTS_SINCE}; compile the bundle again"
        )


def _open(data: bytes) -> ctypes.CDLL:
    """Loads a library from exactly the bytes that were checked, whatever happens to the file meanwhile."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("libedgeq")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(data)
            return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(data)
        file.flush()
        return ctypes.CDLL(file.name)


def check(status: int, sentence: bytes | None) -> None:
    """Raises the error that a status stands for; a status of success does nothing.

    Args:
        status: What a function returned.
        sentence: What its handle says of it.
    """
    if status == OK:
        return
    if status == NO_MEMORY or sentence is None:
        raise EdgeqError("there is not enough memory to run the bundle; run smaller batches")
    raise _ERRORS.get(status, EdgeqError)(sentence.decode("utf-8", "replace"))


def to_tensor(array: np.ndarray) -> Tensor:
    """Describes a contiguous array, which must be kept while the tensor is used."""
    tensor = Tensor(type=_number(array.dtype), rank=array.ndim, data=array.ctypes.data, bytes=array.nbytes)
    tensor.shape[: array.ndim] = array.shape
    return tensor


def view_of(tensor: Tensor, owner: Any) -> np.ndarray:
    """Returns an array over the memory of a tensor, which ``owner`` keeps alive."""
    memory = (ctypes.c_uint8 * tensor.bytes).from_address(tensor.data)
    memory.owner = owner
    return np.frombuffer(memory, _DTYPES[tensor.type]).reshape(tensor.shape[: tensor.rank])


@functools.cache
def _number(dtype: np.dtype) -> int:
    return _DTYPES.index(dtype.name)
