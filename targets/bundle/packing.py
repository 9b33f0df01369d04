"""A bundle as one file, and as one program.

Layout of a packed bundle (``.edgeq``), all numbers little-endian: a header of 64 bytes (``EDGEQPK1``, uint32 version,
uint32 number of files, uint64 bytes of the whole, uint64 bytes of the table, SHA-256 of the table), the table (for each
file uint64 offset, uint64 bytes, uint16 length of the name, name in UTF-8), then the files, each at a multiple of 4096.
The manifest comes first; the digests of all other files are in it. A program is ``edgeq-run`` as a static executable, a
packed bundle at a multiple of 4096 behind it, and 32 bytes at the very end that say where: ``EDGEQEND``, uint64 offset,
uint64 bytes, zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.files import Output, new_file, new_folder
from edgeq.reading import open_regular
from edgeq.targets.builtin.target import Target
from edgeq.targets.bundle.writer import contents_of
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.manifest_parser import is_plain_path
from edgeq.targets.runtime.names import MANIFEST_DIGEST_FILE, MANIFEST_FILE, RUNNER_FILE, SIGNATURE_FILE
from edgeq.targets.toolchain.libedgeq import build_static_runner

MAGIC, END_MAGIC = b"EDGEQPK1", b"EDGEQEND"
VERSION = 1
PAGE = 4096
_HEADER = struct.Struct("<8sIIQQ32s")
_ENTRY = struct.Struct("<QQH")
_TRAILER = struct.Struct("<8sQQ8x")
_LARGEST_TABLE = 1 << 20
_CHUNK = 1 << 20
OUTPUT = Output("unpack", contents_of)


def pack_bundle(bundle: Path | str, out: Path | str, *, force: bool = False) -> Path:
    """Writes a bundle as one file.

    Args:
        bundle: The bundle's folder; every file is compared with its digest.
        out: File to write; it appears only when it is complete, and replaces an earlier packed bundle.
        force: Replace ``out`` whatever it is.

    Returns:
        ``out``.

    Raises:
        UsageError: If there is no bundle, or ``out`` cannot be written.
        FormatError: If a file of the bundle is damaged.
    """
    files = _files_of(Path(bundle))
    with _new_file(Path(out), force=force) as stream:
        _write_pack(stream, Path(bundle), files)
    return Path(out)


def pack_program(bundle: Path | str, out: Path | str, *, force: bool = False) -> Path:
    """Writes a bundle as one program that needs nothing else.

    Args:
        bundle: The bundle's folder.
        out: Program to write.
        force: Replace ``out`` whatever it is.

    Returns:
        ``out``.

    Raises:
        UsageError: If there is no bundle, or ``out`` cannot be written.
        FormatError: If a file of the bundle is damaged.
        EdgeqError: If the program cannot be built.
    """
    files = _files_of(Path(bundle))
    with tempfile.TemporaryDirectory() as folder, _new_file(Path(out), force=force, mode=0o755) as stream:
        program = Path(folder) / RUNNER_FILE
        build_static_runner(_target_of(Path(bundle)), program)
        with program.open("rb") as source:
            shutil.copyfileobj(source, stream)
        stream.write(bytes(-stream.tell() % PAGE))
        start = stream.tell()
        _write_pack(stream, Path(bundle), files)
        stream.write(_TRAILER.pack(END_MAGIC, start, stream.tell() - start))
    return Path(out)


def unpack_bundle(file: Path | str, out: Path | str, *, force: bool = False) -> Path:
    """Writes the folder that a packed bundle, or a program with a bundle in it, was made from, byte for byte.

    Args:
        file: What :func:`pack_bundle` or :func:`pack_program` wrote.
        out: Folder to write; it replaces an earlier bundle.
        force: Replace ``out`` whatever it holds.

    Returns:
        ``out``.

    Raises:
        UsageError: If there is no such file, or ``out`` cannot be written.
        FormatError: If the file is no packed bundle, or damaged.
        UnsupportedError: If it is of another version.
    """
    path = Path(file)
    with open_regular(path) as stream, new_folder(Path(out), OUTPUT, force=force, sources=(path,)) as folder:
        start, size = _place_of_pack(stream, path)
        for name, offset, length in _read_table(stream, path, start=start, size=size):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            stream.seek(start + offset)
            with target.open("wb") as written:
                _copy(stream, written, length)
            target.chmod(0o755 if name == RUNNER_FILE else 0o644)
        verify_files(folder, read_manifest(folder))
    return Path(out)


@contextlib.contextmanager
def _new_file(path: Path, *, force: bool, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yields a file that becomes ``path`` if the block succeeds; only packed bundles are replaced without ``force``."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not force:
        try:
            with open_regular(path) as before:
                _place_of_pack(before, path)
        except FormatError as error:
            raise UsageError(
                f"{path} is no packed bundle, so it is not replaced; give another name, or --force"
            ) from error
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.absolute().parent} is no folder; make it first, or give another name")
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(new_file(path, mode=mode))
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        yield stream


def _files_of(bundle: Path) -> list[str]:
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    signature = [SIGNATURE_FILE] if (bundle / SIGNATURE_FILE).is_file() else []
    return [MANIFEST_FILE, MANIFEST_DIGEST_FILE, *signature, *sorted(manifest.files)]


def _target_of(bundle: Path) -> Target:
    """The least of the processors that the bundle has code for."""
    info = read_manifest(bundle).targets[-1]
    same = {field: getattr(info, field) for field in ("name", "triple", "cpu", "features", "isa", "cpu_flags")}
    return Target(summary="", linker="zig", **same)


def _write_pack(stream: BinaryIO, bundle: Path, files: Sequence[str]) -> None:
    start, sizes = stream.tell(), [(bundle / name).stat().st_size for name in files]
    table_bytes = sum(_ENTRY.size + len(name.encode()) for name in files)
    offset, entries = _rounded(_HEADER.size + table_bytes), []
    for name, size in zip(files, sizes, strict=True):
        entries.append(_ENTRY.pack(offset, size, len(name.encode())) + name.encode())
        offset = _rounded(offset + size)
    table = b"".join(entries)
    stream.write(_HEADER.pack(MAGIC, VERSION, len(files), offset, len(table), hashlib.sha256(table).digest()))
    stream.write(table)
    for name, size in zip(files, sizes, strict=True):
        stream.write(bytes(-(stream.tell() - start) % PAGE))
        with (bundle / name).open("rb") as source:
            _copy(source, stream, size)
    stream.write(bytes(-(stream.tell() - start) % PAGE))


def _rounded(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copies exactly so many bytes.

    Raises:
        FormatError: If the source ends before.
    """
    while size:
        part = source.read(min(size, _CHUNK))
        if not part:
            raise FormatError(f"{source.name} was cut off while it was read; copy the bundle again")
        target.write(part)
        size -= len(part)


def _place_of_pack(stream: BinaryIO, path: Path) -> tuple[int, int]:
    """Where the packed bundle starts in the file, and its size."""
    whole = stream.seek(0, 2)
    stream.seek(0)
    if stream.read(len(MAGIC)) == MAGIC:
        return 0, whole
    if whole >= _TRAILER.size:
        stream.seek(whole - _TRAILER.size)
        magic, start, size = _TRAILER.unpack(stream.read(_TRAILER.size))
        if magic == END_MAGIC and start % PAGE == 0 and start + size + _TRAILER.size == whole:
            return start, size
    raise FormatError(f"{path} is neither a packed bundle nor a program with one in it; make one with `edgeq pack`")


def _read_table(stream: BinaryIO, path: Path, *, start: int, size: int) -> list[tuple[str, int, int]]:
    """Name, offset and bytes of each file; every one lies inside the pack."""
    damaged = FormatError(f"{path} is a damaged packed bundle; copy it again, or pack the bundle again")
    stream.seek(start)
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise damaged
    magic, version, count, whole, table_bytes, digest = _HEADER.unpack(header)
    if magic != MAGIC:
        raise damaged
    if version != VERSION:
        raise UnsupportedError(f"{path} is of version {version}, this edgeq reads version {VERSION}; pack it again")
    if whole != size or table_bytes > min(_LARGEST_TABLE, size):
        raise damaged
    table = stream.read(table_bytes)
    if hashlib.sha256(table).digest() != digest:
        raise damaged
    files, at = [], 0
    try:
        for _ in range(count):
            offset, length, name_bytes = _ENTRY.unpack_from(table, at)
            at += _ENTRY.size + name_bytes
            name = table[at - name_bytes : at].decode()
            if not is_plain_path(name) or offset % PAGE or offset + length > size:
                raise damaged
            files.append((name, offset, length))
    except (struct.error, UnicodeDecodeError) as error:
        raise damaged from error
    if at != len(table) or len({name for name, _, _ in files}) != count:
        raise damaged
    return files
