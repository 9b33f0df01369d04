"""Which stages of a run are finished, and whether what they wrote is still what they wrote.

A stage is skipped when nothing that it depends on has changed: its parameters, the contents of what
earlier stages wrote, and its own results. Contents are compared by SHA-256, not by time, so a stage
that is repeated with the same outcome does not make the later ones repeat.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UsageError
from edgeq.reading import sha256
from edgeq.results import About, RunRecord, StageRecord

STATE_FILE = "deploy.json"
_LOCK_FILE = ".deploy.lock"
_STAGE_FOLDERS = ("checkpoint", "onnx", "float-onnx")
_RESULTS = ("accuracy", "parity", "ledger", "profile", "report")
_STAGE_FILES = (STATE_FILE, *(f"{name}.json" for name in _RESULTS), "report.html")


class RunState:
    """The contents of ``deploy.json``.

    Attributes:
        folder: The run's folder.
        about: What the run is of: source, recipe, targets.
        stages: Records of finished stages by name.
    """

    def __init__(self, folder: Path, about: About, stages: dict[str, StageRecord]) -> None:
        self.folder = folder
        self.about = about
        self.stages = stages

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Reads the state of a run.

        Raises:
            UsageError: If the folder is not a run.
            FormatError: If ``deploy.json`` is damaged, of another version, or names a file outside the folder.
        """
        file = folder / STATE_FILE
        if not file.is_file():
            raise UsageError(f"{folder} has no {STATE_FILE}; give a folder that 'edgeq deploy' wrote")
        record = RunRecord.read(file)
        for name in (name for stage in record.stages.values() for name in stage.files):
            if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name or Path(name) == Path():
                raise FormatError(f"{file} names {name!r}, which is no file of this folder; {RunRecord.fix}")
        return cls(folder, record.about, dict(record.stages))

    def save(self) -> None:
        """Writes ``deploy.json`` in one step."""
        RunRecord(self.about, self.stages).write(self.folder / STATE_FILE)

    def is_current(self, stage: str, key: str, outputs: tuple[str, ...]) -> bool:
        """Whether a stage finished with this key and its files are untouched: none changed, gone or added."""
        record = self.stages.get(stage)
        if record is None or record.key != key:
            return False
        present = list_files(self.folder, outputs)
        return sorted(present) == sorted(record.files) and all(
            sha256(self.folder / name) == expected for name, expected in record.files.items()
        )

    def finish(self, stage: str, key: str, outputs: tuple[str, ...]) -> None:
        """Records what a stage has just written."""
        files = {name: sha256(self.folder / name) for name in list_files(self.folder, outputs)}
        self.stages[stage] = StageRecord(key, files)
        self.save()

    def forget_all_but(self, stages: set[str]) -> None:
        """Drops stages that left the run, with their files: those of a target not asked for any more."""
        for name in sorted(set(self.stages) - stages):
            for file in self.stages.pop(name).files:
                path = self.folder / file
                # A link may lead out of the folder by a name that does not.
                if path.is_file() and path.parent.resolve().is_relative_to(self.folder.resolve()):
                    path.unlink()
                _remove_empty_parents(path, self.folder)
        self.save()


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def list_files(folder: Path, outputs: tuple[str, ...]) -> list[str]:
    """Paths, relative to ``folder``, of all files that the named outputs (files or folders) consist of."""
    found = []
    for output in outputs:
        path = folder / output
        members = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [str(member.relative_to(folder)) for member in members if member.is_file()]
    return found


def fingerprint_source(source: str) -> str:
    """Digest of all files of a checkpoint folder, or of the name itself for a model from a hub."""
    folder = Path(source)
    if not folder.is_dir():
        return digest({"name": source})
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    return digest({str(file.relative_to(folder)): sha256(file) for file in files})


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds a run's folder for this process, and removes what an interrupted one left half-written.

    Raises:
        UsageError: If another process is writing it.
        FormatError: If something else than a file lies in the place of the lock.
    """
    handle = _open_lock(folder / _LOCK_FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another edgeq is writing {folder}; wait for it or give another folder") from None
        _remove_leftovers(folder)
        yield
    finally:
        os.close(handle)


def _open_lock(path: Path) -> int:
    """Opens a file that is only locked: nothing is waited for, cut off, or reached through a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
    except PermissionError:
        raise UsageError(f"{path} cannot be written; give another folder") from None
    except OSError as error:
        raise FormatError(f"{path} should be an empty file ({error.strerror}); delete it") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FormatError(f"{path} should be an empty file, found something else; delete it")
    return handle


def holds_nothing_of_others(folder: Path) -> bool:
    """Tells whether a folder is empty but for what a run writes before its first ``deploy.json``."""
    return all(path.name == _LOCK_FILE or path.match(f".{STATE_FILE}.*") for path in folder.iterdir())


def remove_if_nothing_was_done(folder: Path) -> None:
    """Takes a run's folder away if no stage, and no training inside one, has written anything that lasts."""
    left = {path.name for path in folder.iterdir()}
    if left <= {STATE_FILE, _LOCK_FILE}:
        for name in left:
            (folder / name).unlink()
        folder.rmdir()


def _remove_leftovers(folder: Path) -> None:
    """Removes the temporary names under which :mod:`edgeq.files` writes."""
    names = "|".join(map(re.escape, _STAGE_FOLDERS))
    folders = re.compile(rf"\.({names})\.\w+\.(partial|old)"), re.compile(r"\.[\w.-]+\.\w+\.(partial|old)")
    for parent, pattern in zip((folder, folder / "bundles"), folders, strict=True):
        for leftover in parent.glob(".*"):
            if pattern.fullmatch(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
    for name in _STAGE_FILES:
        for leftover in folder.glob(f".{name}.*"):
            leftover.unlink(missing_ok=True)


def _remove_empty_parents(path: Path, stop: Path) -> None:
    for parent in path.parents:
        if parent == stop or parent.is_symlink() or not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()
