"""Outputs appear whole or not at all: everything is written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeq.errors import UsageError


def check_new_folder(path: Path) -> None:
    """Refuses a path that :func:`new_folder` could not write; called before work that takes minutes.

    Raises:
        UsageError: If it, or what should hold it, is a file, or the user may not write there.
    """
    path = Path(path).absolute()
    holder = next(parent for parent in (path, *path.parents) if parent.exists())
    if not holder.is_dir():
        raise UsageError(f"{holder} is a file; give the name of a folder to write, found {path}")
    if holder == path:
        holder = path.parent  # what replaces a folder is made beside it
    if not os.access(holder, os.W_OK | os.X_OK):
        raise UsageError(f"{holder} cannot be written; give another folder than {path}")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside ``path`` that becomes ``path`` if the block succeeds.

    An existing ``path`` is replaced only when the block has finished without an error.

    Raises:
        UsageError: If ``path`` cannot be written.
    """
    path = Path(path).absolute()
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, retired / "old")
            os.replace(temporary, path)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``path`` in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def cache_folder() -> Path:
    """Returns the user's cache folder of edgeq (``EDGEQ_CACHE``, or ``edgeq`` under ``XDG_CACHE_HOME``)."""
    if os.environ.get("EDGEQ_CACHE"):
        return Path(os.environ["EDGEQ_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq"


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
