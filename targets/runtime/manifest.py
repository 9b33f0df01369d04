"""``manifest.json`` of a bundle: written with its digest beside it, read strictly.

Every size in it is checked against the files before anything is mapped, so that a damaged or hostile
manifest is a sentence and never an access outside a file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.targets.runtime.digests import check_blocks, check_whole_files
from edgeq.targets.runtime.manifest_file import read_manifest_file
from edgeq.targets.runtime.manifest_parser import manifest_of
from edgeq.targets.runtime.names import MANIFEST_DIGEST_FILE, MANIFEST_FILE, SIGNATURE_FILE
from edgeq.targets.runtime.schema import Manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json`` and, beside it, its digest in the format of ``sha256sum``."""
    data = manifest.to_json().encode("utf-8")
    (folder / MANIFEST_FILE).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST_DIGEST_FILE).write_text(f"{digest}  {MANIFEST_FILE}\n", encoding="ascii")


def read_manifest(bundle: Path) -> Manifest:
    """Reads and checks the manifest of a bundle folder.

    Raises:
        UsageError: If the folder is missing or is no bundle.
        FormatError: If the manifest is damaged, of another version, or disagrees with the files' sizes.
    """
    bundle = Path(bundle)
    manifest = manifest_of(read_manifest_file(bundle), bundle)
    for name, record in manifest.files.items():
        _check_size(bundle / name, record.bytes)
    return manifest


def verify_files(bundle: Path, manifest: Manifest) -> None:
    """Compares every SHA-256 in the manifest, of files and of their blocks, with the files.

    Raises:
        FormatError: For the first file that differs.
    """
    check_blocks(Path(bundle), manifest.files, threads=os.cpu_count() or 1)
    check_whole_files(Path(bundle), manifest.files)


def unlisted_files(bundle: Path, manifest: Manifest) -> list[str]:
    """Returns the files in a bundle's folder that its manifest does not list, and so does not vouch for."""
    known = {MANIFEST_FILE, MANIFEST_DIGEST_FILE, SIGNATURE_FILE, *manifest.files}
    found = (path.relative_to(bundle).as_posix() for path in Path(bundle).rglob("*") if not path.is_dir())
    return sorted(name for name in found if name not in known)


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise FormatError(f"{path} is missing from the bundle; copy or compile the bundle again")
    found = path.stat().st_size
    if found != expected:
        raise FormatError(
            f"{path} has {found} bytes, the manifest says {expected}; copy or compile the bundle again"
        )
