"""The file of results: one entry a measurement, with its machine and minute, so that parts may be made apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.files import write_text

SPEED, START, COMPILE = "speed", "start", "compile"
"""Kinds of entries."""


def read(file: Path | None) -> list[dict[str, Any]]:
    """Returns the entries of ``file``; none if it is not there."""
    if file is None or not file.is_file():
        return []
    entries: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["entries"]
    return entries


def find(entries: list[dict[str, Any]], kind: str, name: str, threads: int) -> dict[str, Any] | None:
    """Returns the entry of one measurement, or None."""
    return next((entry for entry in entries if _key(entry) == (kind, name, threads)), None)


def put(entries: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the entries with ``entry`` in the place of the one of the same name, or at the end."""
    if find(entries, *_key(entry)) is None:
        return [*entries, entry]
    return [entry if _key(old) == _key(entry) else old for old in entries]


def write(file: Path, entries: list[dict[str, Any]]) -> None:
    """Writes the file anew."""
    write_text(file, json.dumps({"entries": entries}, indent=1) + "\n")


def _key(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["kind"], entry["name"], entry["threads"]
