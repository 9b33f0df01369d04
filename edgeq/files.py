"""Outputs appear whole or not at all, and never in the place of something that edgeq did not write.

Everything is written under a temporary name, or without one, and takes its own when it is whole. What lies at the place
of an output already is replaced only if the same verb wrote every file of it, or if the user says so (``--force``). How
an output is recognised is said by its :class:`Output`: by its own table of contents, or by the file :data:`MARKER`,
which :func:`new_folder` adds.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.json_text import json_text
from edgeq.reading import read_bytes, read_text

MARKER = ".edgeq-output"
"""File in an output folder: a line that says which verb wrote it, then the name of each file, one a line."""
_FIRST_LINE = "written by edgeq {verb}; edgeq replaces this folder if it holds these files only"
_LARGEST_MARKER = 1 << 24


@dataclasses.dataclass(frozen=True)
class Output:
    """A kind of folder that edgeq writes, and how one of them is told from everything else.

    Attributes:
        verb: What writes it.
        contents: Returns the files, relative to a folder, that the verb wrote into it and that may be replaced with
            it; None if the folder is no output of the verb. Without it, :data:`MARKER` says so.
    """

    verb: str
    contents: Callable[[Path], Collection[str] | None] | None = None

    def files_of(self, folder: Path) -> Collection[str] | None:
        """See ``contents``."""
        return _marked_files(folder, self.verb) if self.contents is None else self.contents(folder)


def made_of(verb: str, *names: str) -> Output:
    """Returns a kind of folder that lies inside one of edgeq's own and holds files of these names only."""
    return Output(verb, contents=lambda _: names)


def check_new_folder(path: Path, output: Output, *, force: bool = False, sources: Collection[Path] = ()) -> None:
    """Refuses a path that :func:`new_folder` could not write; called before work that takes minutes.

    Args:
        path: Where the output is to be.
        output: Its kind.
        force: Whether the user wants whatever is there replaced.
        sources: Folders that the output is made from, which nothing may replace.

    Raises:
        UsageError: If it, or what should hold it, is a file, the user may not write there, it holds a source, or
            something is there that is not an output of the same verb.
    """
    path = Path(path).resolve()
    holder = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not holder.is_dir():
        raise UsageError(f"{holder} is a file; give the name of a folder to write, found {path}")
    for source in map(Path.resolve, map(Path, sources)):
        if path == source or path in source.parents:
            raise UsageError(f"the output {path} would replace the source {source}; give another folder")
    if holder == path:
        if os.path.ismount(path):
            raise UsageError(f"{path} is a file system of its own, which is not replaced; give a folder in it")
        if not force:
            _check_replaceable(path, output)
        holder = path.parent  # what replaces a folder is made beside it
    if not os.access(holder, os.W_OK | os.X_OK):
        raise UsageError(f"{holder} cannot be written; give another folder than {path}")


def _check_replaceable(path: Path, output: Output) -> None:
    """Refuses a folder that holds anything else than what ``output.verb`` wrote."""
    present = sorted(_files(path))
    if not present:
        return
    try:
        written = output.files_of(path)
    except EdgeqError:
        written = None  # damaged, and so nothing that could tell whose the files are
    if written is None:
        raise UsageError(
            f"{path} was not written by 'edgeq {output.verb}' (it holds {present[0]}), so it is not replaced; give "
            "another folder, or --force (in Python force=True) to erase what is there"
        )
    others = [name for name in present if name not in written and name != MARKER]
    if others:
        raise UsageError(
            f"{path / others[0]} was not written by 'edgeq {output.verb}', so the folder is not replaced; move it "
            "away, give another folder, or --force (in Python force=True) to erase what is there"
        )


def _files(folder: Path) -> list[str]:
    """Names of everything in a folder but folders; links to folders are not followed, and count."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in (*files, *links)]
    return found


def _marked_files(folder: Path, verb: str) -> list[str] | None:
    marker = folder / MARKER
    if not os.path.lexists(marker):
        return None
    first, *names = read_text(marker, largest=_LARGEST_MARKER).split("\n")
    return names if first == _FIRST_LINE.format(verb=verb) else None


@contextlib.contextmanager
def new_folder(path: Path, output: Output, *, force: bool = False, sources: Collection[Path] = ()) -> Iterator[Path]:
    """Yields an empty temporary folder beside ``path`` that becomes ``path`` if the block succeeds.

    An existing output is replaced only when the block has finished without an error. A link is followed: what it
    leads to is replaced.

    Args:
        path: Where the output is to be.
        output: Its kind.
        force: Whether the user wants whatever is there replaced.
        sources: Folders that the output is made from, which nothing may replace.

    Raises:
        UsageError: If ``path`` cannot be written; see :func:`check_new_folder`.
    """
    path = Path(path).resolve()
    check_new_folder(path, output, force=force, sources=sources)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, re.escape(path.name))
    temporary, lock = _locked_folder(path)
    try:
        yield temporary
        if output.contents is None:
            lines = [_FIRST_LINE.format(verb=output.verb), *sorted(_files(temporary))]
            (temporary / MARKER).write_text("\n".join(lines), encoding="utf-8")
        # Once more, since the work may have taken an hour.
        check_new_folder(path, output, force=force, sources=sources)
        _put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path, *outputs: str) -> None:
    """Removes the temporary folders of outputs whose process was killed; those of a living process are locked.

    Args:
        folder: Where the outputs are.
        outputs: Regular expressions of their names.
    """
    pattern = re.compile(rf"\.({'|'.join(outputs)})\.[a-z0-9_]{{8}}\.partial")  # the alphabet of tempfile
    for leftover in folder.iterdir():
        if not pattern.fullmatch(leftover.name):
            continue
        with contextlib.suppress(OSError):  # held, gone, or something else than a folder
            if (lock := _lock(leftover)) is not None:
                shutil.rmtree(leftover, ignore_errors=True)
                os.close(lock)


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    """Makes the temporary folder of an output; returns it and what holds its lock, None where there are no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        # Before it is locked, another process may take it for a leftover.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            folder.chmod(0o755)
            lock = _lock(folder)
            if folder.exists():
                return folder, lock


def _lock(folder: Path) -> int | None:
    """Locks a folder for this process; None for folders of other users and where the file system has no locks.

    Raises:
        BlockingIOError: If another process holds it.
        FileNotFoundError: If it is gone.
    """
    import fcntl  # Windows has none

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_uid == os.geteuid():
            return handle
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        pass  # NFS knows no lock of a folder
    os.close(handle)
    return None


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.replace(temporary, path)
        return
    if _exchange(temporary, path):
        return  # what was there is what the caller removes
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    os.replace(path, retired / "old")
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(retired / "old", path)
        retired.rmdir()
        raise
    shutil.rmtree(retired)


def _exchange(one: Path, other: Path) -> bool:
    """Gives two folders each other's name in one step, so that a kill loses neither; False where nothing can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def check_new_file(path: Path, *, verb: str, marker: bytes, force: bool = False) -> None:
    """Refuses to replace a file that a verb did not write.

    Args:
        path: Where the file is to be.
        verb: What writes it.
        marker: Bytes that every file of the verb holds, and no other.
        force: Whether the user wants whatever is there replaced.

    Raises:
        UsageError: If something else lies there, or ``path`` cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file to write")
    if not os.path.lexists(path) or force:
        return
    try:
        ours = marker in read_bytes(path)
    except (FormatError, UsageError):
        ours = False
    if not ours:
        raise UsageError(
            f"{path} was not written by 'edgeq {verb}', so it is not replaced; give another name, or --force (in "
            "Python force=True) to overwrite it"
        )


@contextlib.contextmanager
def new_file(path: Path, *, mode: int = 0o644, replace: bool = True) -> Iterator[BinaryIO]:
    """Yields a file that becomes ``path`` in one step if the block succeeds.

    Until then it has no name, where the file system can do that: a kill leaves nothing of it.

    Args:
        path: Where the file is to be; its folder exists.
        mode: Who may read and write it.
        replace: Whether it replaces a file that is there.

    Raises:
        FileExistsError: If something lies at ``path`` and is not to be replaced.
        OSError: If the folder cannot be written.
    """
    path = Path(path).absolute()
    handle, temporary = _unnamed_file(path.parent), None
    if handle is None:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(handle, mode)
            present = temporary or f"/proc/self/fd/{handle}"  # a link, which os.link follows if a folder is named
            if not replace:
                os.link(present, path, src_dir_fd=handle)
            elif temporary is None:
                temporary = str(path.parent / f".{path.name}.{secrets.token_hex(8)}")
                os.link(present, temporary, src_dir_fd=handle)
        if replace and temporary is not None:
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _unnamed_file(folder: Path) -> int | None:
    """Opens a new file without a name; None where that is not possible."""
    if not os.path.exists("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``path`` in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, value: Any, *, indent: int | None = 1, sort_keys: bool = False) -> None:
    """Writes a value as a JSON file in one step; see :func:`~edgeq.json_text.json_text`."""
    write_text(path, json_text(value, indent=indent, sort_keys=sort_keys) + "\n")


def cache_folder() -> Path:
    """Returns the user's cache folder of edgeq (``EDGEQ_CACHE``, or ``edgeq`` under ``XDG_CACHE_HOME``)."""
    if os.environ.get("EDGEQ_CACHE"):
        return Path(os.environ["EDGEQ_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeq"
