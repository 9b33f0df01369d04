"""SHA-256 of a bundle's files: of the whole, and of blocks that are compared on all cores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.targets.runtime.schema import DIGEST_BLOCK, FileRecord


def file_record(path: Path) -> FileRecord:
    """Returns what a manifest says of a file."""
    whole, size, blocks = hashlib.sha256(), 0, []
    with path.open("rb") as stream:
        while block := stream.read(DIGEST_BLOCK):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest())
            size += len(block)
    return FileRecord(whole.hexdigest(), size, tuple(blocks))


def check_blocks(bundle: Path, files: Mapping[str, FileRecord], *, threads: int) -> None:
    """Compares every block of the files with its digest, on several threads.

    Raises:
        FormatError: For the first file that differs.
    """
    places = [(bundle / name, index) for name, record in files.items() for index in range(len(record.blocks))]
    expected = [digest for record in files.values() for digest in record.blocks]
    # Hashing lets other threads of Python run.
    with ThreadPoolExecutor(threads) as pool:
        for (path, _), found, digest in zip(places, pool.map(_block_digest, places), expected, strict=True):
            _compare(path, found, digest)


def check_whole_files(bundle: Path, files: Mapping[str, FileRecord]) -> None:
    """Compares every file as ``sha256sum`` would, which is what other programs compare.

    Raises:
        FormatError: For the first file that differs.
    """
    for name, record in files.items():
        with (bundle / name).open("rb") as stream:
            _compare(bundle / name, hashlib.file_digest(stream, "sha256").hexdigest(), record.sha256)


def _block_digest(place: tuple[Path, int]) -> str:
    path, index = place
    with path.open("rb", buffering=0) as stream:
        stream.seek(index * DIGEST_BLOCK)
        return hashlib.sha256(stream.read(DIGEST_BLOCK)).hexdigest()


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise FormatError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...; "
            "copy or compile the bundle again"
        )
