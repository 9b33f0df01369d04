"""libedgeq, the C library that every bundle carries: loaded from bytes whose digest was checked, and its interface.

The structures are those of ``edgeq.h``, version 1. What only some tasks need is in ``native_tasks.py`` and
``native_generation.py``: making a structure takes some 50 microseconds, and a start is short.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.reading import read_bytes
from edgeq.targets.runtime.forking import after_fork
from edgeq.targets.runtime.sha256 import sha256_of

ABI_MAJOR = 1
MAX_RANK = 8
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

Functions = Mapping[str, tuple[Any, ...]]
"""Result and arguments of functions, by name."""


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


TENSORS, TEXTS = ctypes.POINTER(Tensor), ctypes.POINTER(Text)
OPTIONS, READINGS = ctypes.POINTER(TextOptions), ctypes.POINTER(Reading)
_FUNCTIONS: Functions = {
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
    "edgeq_state": (_int32, _pointer, _size, TENSORS),
    "edgeq_run": (_int32, _pointer, _int32, TENSORS, TENSORS),
}
"""Those that every library has, and every bundle needs."""
_TEXT_FUNCTIONS: Functions = {
    "edgeq_cancel": (None, _pointer),
    "edgeq_embed_texts": (_int32, _pointer, TEXTS, _size, OPTIONS, _pointer, READINGS),
    "edgeq_classify_texts": (_int32, _pointer, TEXTS, _size, OPTIONS, _pointer, _pointer, READINGS),
}
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
    found = sha256_of(data)
    if found != digest:
        raise FormatError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., the manifest says {digest[:12]}...; "
            "copy or compile the bundle again"
        )
    with _LOCK:
        if digest not in _LOADED:
            _LOADED[digest] = _loaded(path, data)
        return _LOADED[digest]


def _forget_threads() -> None:
    """Makes the lock anew: the thread that held it may not be in the child of a fork."""
    global _LOCK
    _LOCK = threading.Lock()


after_fork(_forget_threads)


def _loaded(path: Path, data: bytes) -> ctypes.CDLL:
    try:
        library = _open(data)
        declare(library, _FUNCTIONS)
        minor = library.edgeq_abi_version() & 0xFFFF
        if minor >= TEXTS_SINCE:
            declare(library, _TEXT_FUNCTIONS)
    except (OSError, AttributeError) as error:
        raise FormatError(f"{path} cannot be loaded ({error}); compile the bundle again") from error
    major = library.edgeq_abi_version() >> 16
    if major != ABI_MAJOR:
        raise UnsupportedError(
            f"{path} has version {major} of the interface, this edgeq uses {ABI_MAJOR}; compile the bundle again"
        )
    return library


def declare(library: ctypes.CDLL, functions: Functions) -> None:
    """Says what functions of a library return and take.

    Raises:
        AttributeError: If it lacks one.
    """
    for name, (result, *arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


@functools.cache
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
    import tempfile  # takes long, and only systems without memfd_create need it

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


def to_tensors(arrays: Sequence[np.ndarray]) -> Any:
    """Returns the ``edgeq_tensor`` of contiguous arrays, which must be kept while these are used."""
    fields: list[Any] = [(_number(a.dtype), a.ndim, a.shape, address_of(a), a.nbytes) for a in arrays]
    return (Tensor * len(arrays))(*fields)


def address_of(array: np.ndarray) -> int:
    """Returns where a contiguous array lies; numpy's own way takes four times as long."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError):  # it cannot be written to, or is empty
        return array.ctypes.data


def view_of(tensor: Tensor, owner: Any) -> np.ndarray:
    """Returns an array over the memory of a tensor, which ``owner`` keeps alive."""
    memory = (ctypes.c_uint8 * tensor.bytes).from_address(tensor.data)
    memory.owner = owner
    return np.frombuffer(memory, _DTYPES[tensor.type]).reshape(tensor.shape[: tensor.rank])


@functools.cache
def _number(dtype: np.dtype) -> int:
    return _DTYPES.index(dtype.name)
