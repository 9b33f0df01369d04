"""Brings a bundle to a device: the files that are not there yet, each under its name only when it is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.progress import Progress
from edgeq.reading import sha256
from edgeq.targets.devices.remote.connection import Connection
from edgeq.targets.runtime.manifest import verify_files
from edgeq.targets.runtime.names import MANIFEST_DIGEST_FILE, MANIFEST_FILE, RUNNER_FILE
from edgeq.targets.runtime.schema import Manifest

_BLOCK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Copied:
    """What was sent, and what the device had already.

    Attributes:
        folder: The bundle on the device, as a word of a shell command.
        files: Names of the files that were sent.
        sent_bytes: Their sizes in all.
        kept_bytes: Sizes of the files that were there.
    """

    folder: str
    files: tuple[str, ...]
    sent_bytes: int
    kept_bytes: int


def copy_bundle(connection: Connection, bundle: Path, manifest: Manifest, *, progress: Progress) -> Copied:
    """Makes the device's copy of a bundle equal to the one here.

    Args:
        connection: To the device.
        bundle: The bundle here.
        manifest: Its manifest.
        progress: Told after each block that was sent, in KiB.

    Raises:
        FormatError: If the bundle here is damaged.
        EdgeqError: If a file cannot be copied; a second try sends only what is missing then.
    """
    verify_files(bundle, manifest)
    wanted = {name: record.sha256 for name, record in sorted(manifest.files.items())}
    # Last, so that a copy that was cut short is seen to be none.
    wanted |= {name: sha256(bundle / name) for name in (MANIFEST_FILE, MANIFEST_DIGEST_FILE)}
    folder = _folder(connection, bundle)
    present = _present(connection, folder, list(wanted))
    missing = [name for name, digest in wanted.items() if present.get(name) != digest]
    sizes = {name: (bundle / name).stat().st_size for name in wanted}
    total, sent = sum(sizes[name] for name in missing), 0

    def tell(sent: int) -> None:
        progress(f"copying to {connection.address} (KiB)", sent >> 10, total >> 10)

    for name in missing:
        _send(connection, folder, bundle / name, name=name, digest=wanted[name], tell=tell, before=sent)
        sent += sizes[name]
    return Copied(folder, tuple(missing), total, sum(sizes.values()) - total)


def _folder(connection: Connection, bundle: Path) -> str:
    """One folder for each bundle of each place, so that compiling it again replaces only what changed."""
    place = hashlib.sha256(str(bundle.absolute()).encode()).hexdigest()[:8]
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', bundle.absolute().name)}-{place}"
    parent = connection.address.folder
    if parent is not None:
        return f"{shlex.quote(parent)}/{name}"
    return f'"${{XDG_CACHE_HOME:-$HOME/.cache}}"/edgeq/{name}'


def _present(connection: Connection, folder: str, names: list[str]) -> dict[str, str]:
    """SHA-256 of those of the files that the device has, by name."""
    files = " ".join(map(shlex.quote, names))
    look = f"command -v sha256sum >/dev/null && {{ sha256sum {files} 2>&-; true; }}"
    script = f"mkdir -p {folder} && cd {folder} && {look}"
    answer = connection.ask(script, doing="looking for the bundle there")
    if answer.code != 0:
        raise EdgeqError(
            f"{connection.address} cannot keep bundles in {folder}: {answer.reason}; it must be a folder that can be "
            "written, and the device needs sha256sum (of coreutils or busybox)"
        )
    found = (line.split(maxsplit=1) for line in answer.output.splitlines())
    return {words[1].lstrip("*"): words[0] for words in found if len(words) == 2}


def _send(
    connection: Connection,
    folder: str,
    path: Path,
    *,
    name: str,
    digest: str,
    tell: Callable[[int], None],
    before: int,
) -> None:
    """Sends one file; ``tell`` hears how many bytes have gone, ``before`` of them with earlier files."""
    final, partial = shlex.quote(name), shlex.quote(f"{name}.partial")
    parent = shlex.quote(str(Path(name).parent))
    mode = "755" if name == RUNNER_FILE else "644"
    # What a lost connection leaves looks complete to `cat`: only the digest tells.
    check = f"echo {digest}'  '{partial} | sha256sum -c >/dev/null 2>&1 || {{ echo it arrived damaged >&2; exit 1; }}"
    script = (
        f"cd {folder} && mkdir -p {parent} && cat >{partial} && {{ {check}; }} "
        f"&& chmod {mode} {partial} && mv -f {partial} {final}"
    )

    def blocks() -> Iterator[bytes]:
        gone = before
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block
                gone += len(block)
                tell(gone)

    connection.run(script, doing=f"copying {name}", data=blocks())
