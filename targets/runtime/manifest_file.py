"""``manifest.json`` as a file, and what must be known of it before the bundle's own library can be loaded.

The library reads the rest. What only tools need is in ``manifest.py``, whose parser takes longer than a short call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from edgeq.errors import FormatError, UsageError
from edgeq.formats.json_file import parse_json
from edgeq.reading import read_bytes, read_text
from edgeq.targets.runtime.json_table import JsonTable
from edgeq.targets.runtime.machine import Processor
from edgeq.targets.runtime.names import (
    FORMAT_NAME,
    FORMAT_VERSION,
    LIBRARY_FILE,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
)
from edgeq.targets.runtime.sha256 import sha256_of

_MAX_MANIFEST_BYTES = 16 << 20
_MAX_DIGEST_BYTES = 4096


class Head(NamedTuple):
    """What a start needs of a manifest.

    Attributes:
        processors: What the bundle has code for, best first.
        library: SHA-256 of its library, or None if it holds none.
    """

    processors: tuple[Processor, ...]
    library: str | None


def read_manifest_file(bundle: Path) -> bytes:
    """Returns the bytes of a bundle's manifest, which have the digest that lies beside them.

    Raises:
        UsageError: If the folder is missing or is no bundle.
        FormatError: If the manifest is damaged.
    """
    path = bundle / MANIFEST_FILE
    if not bundle.is_dir():
        raise UsageError(f"no bundle folder at {bundle}; make one with `edgeq compile`")
    if not path.is_file():
        raise UsageError(
            f"{bundle} is not a bundle: it has no {MANIFEST_FILE}; make one with `edgeq compile`"
        )
    data = read_bytes(path, largest=_MAX_MANIFEST_BYTES)
    _check_digest(bundle, data)
    return data


def parse_manifest_file(data: bytes, path: Path) -> Any:
    """Returns the JSON values of a manifest.

    Args:
        data: Its bytes.
        path: What messages call it.

    Raises:
        FormatError: If it is not JSON.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 ({error}); compile the bundle again") from error
    return parse_json(text, where=str(path))


def read_head(data: bytes, bundle: Path) -> Head:
    """Reads what a start needs.

    Raises:
        FormatError: If the manifest is damaged, or of another version.
    """
    path = bundle / MANIFEST_FILE
    table = parse_manifest_file(data, path)
    try:
        root = root_of(table)
        files = root.table("files")
        library = files.table(LIBRARY_FILE).text("sha256") if LIBRARY_FILE in files.items else None
        processors = tuple(_processor(target) for target in root.tables("targets"))
        if not processors:
            raise FormatError("'targets' is empty")
    except FormatError as error:
        raise FormatError(f"{path}: {error}; compile the bundle again") from error
    return Head(processors, library)


def root_of(table: Any) -> JsonTable:
    """Returns the table of a manifest of this version.

    Raises:
        FormatError: If it is something else.
    """
    root = JsonTable(table, "manifest")
    if root.text("format") != FORMAT_NAME:
        raise FormatError(f"'format' must be {FORMAT_NAME!r}, found {root.text('format')!r}")
    version = root.items.get("version", root.items.get("format_version"))
    if version != FORMAT_VERSION:
        raise FormatError(f"it is of format version {version!r}, this edgeq reads version {FORMAT_VERSION}")
    return root


def _processor(target: JsonTable) -> Processor:
    return Processor(target.text("name"), target.text("triple").split("-", 1)[0], target.texts("cpu_flags"))


def _check_digest(bundle: Path, data: bytes) -> None:
    path = bundle / MANIFEST_DIGEST_FILE
    try:
        expected = read_text(path, largest=_MAX_DIGEST_BYTES, encoding="ascii").split()[0]
    except (UsageError, FormatError, IndexError) as error:
        raise FormatError(
            f"cannot read {path}, the digest of {MANIFEST_FILE} ({error}); copy the bundle again"
        ) from error
    found = sha256_of(data)
    if found != expected:
        raise FormatError(
            f"{bundle / MANIFEST_FILE} is damaged: its SHA-256 is {found[:12]}..., "
            f"{MANIFEST_DIGEST_FILE} says {expected[:12]}...; copy or compile the bundle again"
        )
