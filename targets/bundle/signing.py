"""Signs bundles with keys of minisign (ed25519); :mod:`edgeq.targets.runtime.signature` checks them."""

from __future__ import annotations

import base64
import dataclasses
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.files import check_new_file, new_file, write_text
from edgeq.reading import read_text
from edgeq.targets.runtime.manifest import read_manifest, verify_files
from edgeq.targets.runtime.names import MANIFEST_FILE, SIGNATURE_FILE
from edgeq.targets.runtime.signature import ED25519, PREHASHED, TRUSTED, PublicKey, signed_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_COMMENT = "untrusted comment: signature from edgeq"
_PLAIN, _CHECKSUM = b"\0\0", b"B2"
# Algorithm of the key, of its encryption, of its checksum; salt and limits of the encryption; then the key itself.
_LARGEST_KEY_FILE = 1 << 16
_SECRET_KEY_BYTES = 2 + 2 + 2 + 32 + 8 + 8 + 8 + 64 + 32


@dataclasses.dataclass(frozen=True)
class SecretKey:
    """A secret key of minisign: its number, the ed25519 seed, and the public key."""

    seed: bytes
    public: PublicKey


def new_key(path: Path | str) -> PublicKey:
    """Makes a pair of keys: ``path``, to be kept secret, and ``path.pub``.

    The secret key is not encrypted; minisign reads both. A secret key without its public one is what a process leaves
    that was killed between the two: it gets its public one.

    Raises:
        UsageError: If there is a pair already, or something else.
        EdgeqError: If the package cryptography is missing.
    """
    path = Path(path)
    public_path = path.with_name(f"{path.name}.pub")
    if os.path.lexists(public_path):
        _refuse(path if os.path.lexists(path) else public_path)
    if not os.path.lexists(path):
        _write_new_secret_key(path)
    try:
        public = read_secret_key(path).public
    except (FormatError, UsageError):
        _refuse(path)
    encoded = _base64(ED25519 + public.number + public.key)
    write_text(public_path, f"untrusted comment: minisign public key {public.name}\n{encoded}\n")
    return public


def _refuse(path: Path) -> NoReturn:
    raise UsageError(f"{path} exists already; leave out --new-key to sign with it, or name another file")


def _write_new_secret_key(path: Path) -> None:
    """Writes a file that nobody else may read, whole or not at all, and never over another one."""
    seed, number = secrets.token_bytes(32), secrets.token_bytes(8)
    public = PublicKey(number, _private(seed).public_key().public_bytes_raw())
    secret = number + seed + public.key
    # Salt, limits and checksum are for encrypted keys; minisign leaves them empty in others.
    data = ED25519 + _PLAIN + _CHECKSUM + bytes(48) + secret + bytes(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"untrusted comment: minisign secret key {public.name}\n{_base64(data)}\n"
    try:
        with new_file(path, mode=0o600, replace=False) as stream:
            stream.write(text.encode("ascii"))
    except FileExistsError:
        _refuse(path)


def read_secret_key(path: Path | str) -> SecretKey:
    """Reads a secret key that is not encrypted: of :func:`new_key`, or of ``minisign -G -W``.

    Raises:
        UsageError: If the file is none.
    """
    path = Path(path)
    try:
        data = base64.b64decode(read_text(path, largest=_LARGEST_KEY_FILE).splitlines()[1], validate=True)
    except (FormatError, IndexError, ValueError) as error:
        raise UsageError(f"{path} is not a minisign secret key; give one, or create it with --new-key") from error
    if len(data) != _SECRET_KEY_BYTES or data[:2] != ED25519 or data[4:6] != _CHECKSUM:
        raise UsageError(f"{path} is not a minisign secret key; give one, or create it with --new-key")
    if data[2:4] != _PLAIN:
        raise UsageError(
            f"{path} is encrypted; sign with `minisign -S -s {path} -m BUNDLE/{MANIFEST_FILE}`, or with another key"
        )
    number, seed, public = data[54:62], data[62:94], data[94:126]
    if _private(seed).public_key().public_bytes_raw() != public:
        raise UsageError(f"{path} is damaged: its two halves do not belong together; create a new one with --new-key")
    return SecretKey(seed, PublicKey(number, public))


def check_signable(bundle: Path, *, force: bool = False) -> None:
    """Compares a bundle with its manifest and refuses to replace the signature of another program.

    Raises:
        UsageError: If there is no bundle, or it holds a signature that edgeq did not make.
        FormatError: If the bundle is damaged.
    """
    check_new_file(bundle / SIGNATURE_FILE, verb="sign", marker=_COMMENT.encode(), force=force)
    verify_files(bundle, read_manifest(bundle))


def sign_bundle(bundle: Path | str, key: Path | str, *, force: bool = False) -> PublicKey:
    """Signs a bundle, after every file of it was compared with the manifest.

    Args:
        bundle: The bundle's folder; ``manifest.json.minisig`` is written into it.
        key: Secret key file.
        force: Replace a signature that edgeq did not make.

    Returns:
        The public half of the key.

    Raises:
        UsageError: If there is no bundle or no key, or the bundle holds a signature that edgeq did not make.
        FormatError: If the bundle is damaged.
    """
    bundle = Path(bundle)
    secret = read_secret_key(key)
    check_signable(bundle, force=force)
    private = _private(secret.seed)
    signature = private.sign(signed_bytes((bundle / MANIFEST_FILE).read_bytes(), PREHASHED))
    comment = f"timestamp:{int(time.time())}\tfile:{MANIFEST_FILE}\thashed"
    of_comment = private.sign(signature + comment.encode("utf-8"))
    encoded = _base64(PREHASHED + secret.public.number + signature)
    lines = [_COMMENT, encoded, f"{TRUSTED}{comment}", _base64(of_comment), ""]
    write_text(bundle / SIGNATURE_FILE, "\n".join(lines))
    return secret.public


def _private(seed: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise EdgeqError("signing needs the package cryptography: pip install cryptography") from error
    return Ed25519PrivateKey.from_private_bytes(seed)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
