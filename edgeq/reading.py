"""Files of others: opened as regular files only, and never read beyond a size that makes sense."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from edgeq.errors import FormatError, UsageError

LARGEST_TEXT = 1 << 28
"""Bytes of a file that is read whole, unless the caller says less: tokenizers of 250,000 pieces take 17 MB."""


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading, buffered; whoever asks closes it.

    Nothing waits for the other end of a pipe or starts a device: the kind of file is known before it is read. Links
    are followed, since caches are made of them; what they lead to must be a regular file.

    Raises:
        UsageError: If there is no such file, or it may not be read.
        FormatError: If it is something else than a regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; check the name") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError(f"{path} should be a file, found {_kind(mode)}; put the file there")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path, *, largest: int = LARGEST_TEXT) -> bytes:
    """Reads a whole file.

    Args:
        path: The file.
        largest: Most bytes that it may have; its size is looked at before memory is taken.

    Raises:
        UsageError: If there is no such file, or it may not be read.
        FormatError: If it is no regular file, or larger.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > largest:
            raise FormatError(f"{path} should have {largest} bytes at most, found {size}; it is not what it should be")
        try:
            data = stream.read(largest + 1)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > largest:
        raise FormatError(f"{path} should have {largest} bytes at most and grows; it is not what it should be")
    return data


def read_text(path: Path, *, largest: int = LARGEST_TEXT, encoding: str = "utf-8") -> str:
    """Reads a whole UTF-8 text; see :func:`read_bytes`.

    Raises:
        UsageError: If there is no such file, or it may not be read.
        FormatError: If it is no regular file, larger, or not UTF-8.
    """
    data = read_bytes(path, largest=largest)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise FormatError(
            f"{path} is not UTF-8 text: line {line} holds byte 0x{data[error.start]:02x}; convert it, for example with "
            "`iconv -f latin1 -t utf-8`"
        ) from None


def check_regular(paths: Iterable[Path]) -> None:
    """Refuses what is there and is no regular file, before a library is given its name and waits for it.

    Raises:
        FormatError: If one of them is a folder, a pipe or a device, or a link that leads to one.
        UsageError: If one of them may not be read.
    """
    for path in paths:
        if path.exists():
            open_regular(path).close()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a regular file as 64 hexadecimal digits."""
    import hashlib  # loads OpenSSL, which a short call of a bundle does without

    with open_regular(Path(path)) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
