"""``sign``: signs a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, say
from edgeq.cli.verb import Force, Json, verb


@verb("sign", example="sign ./run/bundles/host --key team.key --new-key\nsign ./run/bundles/cortex-a76 --key team.key")
def sign(
    bundle: Annotated[Path, typer.Argument(help="Bundle to sign.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="minisign secret key without a password.")],
    new: Annotated[bool, typer.Option("--new-key", help="Create the key first, and KEY.pub, its public key.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Sign a bundle: `edgeq verify --public-key` and `edgeq.load(public_key=...)` then check who signed it.

    The signature is minisign's (ed25519): `minisign -V -p KEY.pub -m BUNDLE/manifest.json` checks it too, and with it
    the digests in the manifest.
    """
    from edgeq.targets.bundle.signing import check_signable, new_key, sign_bundle
    from edgeq.targets.runtime.names import SIGNATURE_FILE

    if new:
        check_signable(bundle, force=force)  # no key is left behind for a bundle that cannot be signed
        new_key(key)
    public = sign_bundle(bundle, key, force=force)
    if as_json:
        print_json({"bundle": str(bundle), "signature": str(bundle / SIGNATURE_FILE), "key": public.name})
    else:
        say(f"{bundle / SIGNATURE_FILE}: signed with key {public.name}")
