"""``unpack``: the folder that a packed bundle was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, say
from edgeq.cli.verb import Force, Json, verb


@verb("unpack", example="unpack minilm.edgeq ./minilm")
def unpack(
    file: Annotated[Path, typer.Argument(help="File that `edgeq pack` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    *,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the folder that a packed bundle was made from, byte for byte."""
    from edgeq.targets.bundle.packing import unpack_bundle

    unpack_bundle(file, out, force=force)
    if as_json:
        print_json({"file": str(file), "bundle": str(out)})
    else:
        say(f"{out}: unpacked from {file}")
