"""Signatures of bundles, in the format of minisign (ed25519).

``manifest.json`` holds the digest of every other file, so a signature of it covers the whole bundle. It lies beside
it as ``manifest.json.minisig``, where ``minisign -S -m manifest.json`` puts it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from pathlib import Path

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.reading import read_bytes, read_text
from edgeq.targets.runtime.names import MANIFEST_FILE, SIGNATURE_FILE

ED25519, PREHASHED = b"Ed", b"ED"
"""Algorithms: of the data itself, as minisign once did, and of its BLAKE2b-512, as it does now."""
TRUSTED = "trusted comment: "
_UNTRUSTED = "untrusted comment: "
_LARGEST_FILE = 8192


@dataclasses.dataclass(frozen=True)
class PublicKey:
    """A public key of minisign.

    Attributes:
        number: Eight bytes that say which key made a signature.
        key: The ed25519 key, 32 bytes.
    """

    number: bytes
    key: bytes

    @property
    def name(self) -> str:
        """The number as minisign writes it."""
        return f"{int.from_bytes(self.number, 'little'):016X}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature file.

    Attributes:
        algorithm: :data:`ED25519` or :data:`PREHASHED`.
        number: Which key made it.
        signature: 64 bytes, of the data.
        comment: A text that is signed too.
        of_comment: 64 bytes, of the signature and the comment.
    """

    algorithm: bytes
    number: bytes
    signature: bytes
    comment: str
    of_comment: bytes


def read_public_key(path_or_text: Path | str) -> PublicKey:
    """Reads a public key: a file that minisign made, or its second line.

    Raises:
        UsageError: If it is neither.
    """
    text = str(path_or_text)
    if len(text) == 56 and not Path(text).exists():
        lines = [text]
    else:
        lines = [line for line in _lines(Path(text), UsageError) if not line.startswith(_UNTRUSTED)]
    try:
        data = base64.b64decode(lines[0], validate=True)
    except (IndexError, binascii.Error) as error:
        raise UsageError(f"{text} is not a minisign public key; give the .pub file or its second line") from error
    if len(data) != 42 or data[:2] != ED25519:
        raise UsageError(f"{text} is not a minisign public key; give the .pub file or its second line")
    return PublicKey(data[2:10], data[10:])


def read_signature(bundle: Path) -> Signature | None:
    """Reads the signature of a bundle, or returns None if it has none.

    Raises:
        FormatError: If the file is no signature.
    """
    path = bundle / SIGNATURE_FILE
    if not path.is_file():
        return None
    lines = _lines(path, FormatError)
    try:
        data, of_comment = (base64.b64decode(lines[at], validate=True) for at in (1, 3))
        fits = len(data) == 74 and len(of_comment) == 64 and data[:2] in (ED25519, PREHASHED)
        fits = fits and lines[0].startswith(_UNTRUSTED) and lines[2].startswith(TRUSTED)
    except (IndexError, binascii.Error):
        fits = False
    if not fits:
        raise FormatError(f"{path} is not a minisign signature; sign the bundle again")
    return Signature(data[:2], data[2:10], data[10:], lines[2].removeprefix(TRUSTED), of_comment)


def check_signature(bundle: Path, public_key: Path | str) -> str:
    """Checks that a bundle was signed with the private half of a key.

    It covers the manifest; compare the files with that (:func:`edgeq.targets.runtime.manifest.verify_files`) too.

    Args:
        bundle: The bundle's folder.
        public_key: File of minisign, or its second line.

    Returns:
        The signed comment.

    Raises:
        UsageError: If the key is none.
        FormatError: If the bundle is not signed, or by another key, or not as it was when it was signed.
        EdgeqError: If the package cryptography is missing.
    """
    bundle = Path(bundle)
    key = read_public_key(public_key)
    signature = read_signature(bundle)
    if signature is None:
        raise FormatError(f"bundle {bundle} is not signed: it has no {SIGNATURE_FILE}; sign it with `edgeq sign`")
    if signature.number != key.number:
        other = PublicKey(signature.number, b"").name
        raise FormatError(f"bundle {bundle} was signed with key {other}, not with {key.name}; do not trust it")
    signed = signed_bytes(read_bytes(bundle / MANIFEST_FILE), signature.algorithm)
    comment = signature.signature + signature.comment.encode("utf-8")
    if not (_made_by(key, signature.signature, signed) and _made_by(key, signature.of_comment, comment)):
        raise FormatError(
            f"the signature of bundle {bundle} is not that of its {MANIFEST_FILE}: one of them was changed; do not "
            "trust it"
        )
    return signature.comment


def signed_bytes(data: bytes, algorithm: bytes) -> bytes:
    """Returns what an algorithm signs of a file."""
    return hashlib.blake2b(data).digest() if algorithm == PREHASHED else data


def _made_by(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise EdgeqError("checking signatures needs the package cryptography: pip install cryptography") from error
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _lines(path: Path, mistake: type[EdgeqError]) -> list[str]:
    try:
        return read_text(path, largest=_LARGEST_FILE).splitlines()
    except EdgeqError as error:
        raise mistake(f"{path} is not a minisign file: {error}") from error
