"""Digests of a bundle's files: SHA-256 of the whole, SHA-256 and CRC-32 of blocks, which all cores compare."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.targets.runtime.schema import DIGEST_BLOCK, FileRecord

_TOGETHER = 16
"""Blocks that one thread takes at a time."""


def file_record(path: Path) -> FileRecord:
    """Returns what a manifest says of a file."""
    whole, size, blocks, crc32 = hashlib.sha256(), 0, [], ""
    with path.open("rb") as stream:
        while block := stream.read(DIGEST_BLOCK):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest())
            crc32 += f"{zlib.crc32(block):08x}"
            size += len(block)
    return FileRecord(whole.hexdigest(), size, tuple(blocks), crc32)


def check_blocks(bundle: Path, files: Mapping[str, FileRecord], *, threads: int) -> None:
    """Compares every block of the files with its digest, on several threads.

    Raises:
        FormatError: For the first file that differs.
    """
    runs = [
        (bundle / name, first, record.blocks[first : first + _TOGETHER], record.crc32)
        for name, record in files.items()
        for first in range(0, len(record.blocks), _TOGETHER)
    ]
    # Hashing lets other threads of Python run.
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_check_run, runs))


def check_whole_files(bundle: Path, files: Mapping[str, FileRecord]) -> None:
    """Compares every file as ``sha256sum`` would, which is what other programs compare.

    Raises:
        FormatError: For the first file that differs.
    """
    for name, record in files.items():
        with (bundle / name).open("rb") as stream:
            _compare(bundle / name, hashlib.file_digest(stream, "sha256").hexdigest(), record.sha256)


def _check_run(run: tuple[Path, int, Sequence[str], str | None]) -> None:
    path, first, digests, crc32 = run
    with path.open("rb", buffering=0) as stream:
        stream.seek(first * DIGEST_BLOCK)
        for number, digest in enumerate(digests, start=first):
            block = stream.read(DIGEST_BLOCK)
            _compare(path, hashlib.sha256(block).hexdigest(), digest)
            if crc32 is not None:
                _compare(path, f"{zlib.crc32(block):08x}", crc32[8 * number : 8 * number + 8], "CRC-32")


def _compare(path: Path, found: str, expected: str, digest: str = "SHA-256") -> None:
    if found != expected:
        raise FormatError(
            f"{path} is damaged: its {digest} is {found[:12]}..., the manifest says {expected[:12]}...; "
            "copy or compile the bundle again"
        )
