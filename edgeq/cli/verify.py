"""``verify``: whether a bundle is whole, computes what it should, and comes from whom it should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, say
from edgeq.cli.run_options import Threads
from edgeq.cli.verb import Json, verb
from edgeq.errors import EdgeqError, FormatError, UnsupportedError
from edgeq.sizes import counted


@verb(
    "verify",
    example="verify ./run/bundles/cortex-a76\nverify ./run/bundles/host --public-key team.pub",
)
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to check.")],
    *,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="Key of the signer: minisign's .pub file or its second line.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Check every file of a bundle against its sha256 and its signature, then run its self-test, bit for bit.

    With --public-key, the bundle must be signed with that key, and nothing in it runs before that is checked. A
    bundle for another processor runs under the emulator of that processor.
    """
    from edgeq.targets.devices.emulator import self_test, where_it_runs
    from edgeq.targets.runtime.loader import load

    signed = _check_origin(bundle, public_key)
    try:
        loaded = load(bundle, threads=threads, public_key=public_key)
    except UnsupportedError:
        where, result = where_it_runs(bundle), self_test(bundle)
    else:
        where, result = f"in this process, {counted(loaded.threads, 'thread')}", loaded.self_test()
    if not result.ok:
        raise EdgeqError(f"{bundle} failed its self-test ({where}): {result.detail}; compile it again")
    if as_json:
        print_json({"bundle": str(bundle), "ok": True, "signed": signed, "where": where, "detail": result.detail})
    else:
        say(f"{bundle}: every file is intact; {signed}; {result.detail} ({where})")


def _check_origin(bundle: Path, public_key: str | None) -> str:
    """Checks files and signature before anything runs, and says what is known of the signature."""
    from edgeq.targets.runtime.manifest import read_manifest, unlisted_files, verify_files
    from edgeq.targets.runtime.signature import PublicKey, check_signature, read_public_key, read_signature

    manifest = read_manifest(bundle)
    if public_key is not None:
        comment = check_signature(bundle, public_key)
    verify_files(bundle, manifest)
    unlisted = unlisted_files(bundle, manifest)
    if unlisted:
        raise FormatError(
            f"{bundle / unlisted[0]} is not in the manifest, which says nothing about it ({len(unlisted)} such files); "
            "delete it or compile the bundle again"
        )
    if public_key is not None:
        return f"signed with key {read_public_key(public_key).name} ({' '.join(comment.split())})"
    signature = read_signature(bundle)
    if signature is None:
        return "not signed"
    return f"says to be signed with key {PublicKey(signature.number, b'').name} (give --public-key to check that)"
