"""``pack``: a bundle as one file or one program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, say
from edgeq.cli.verb import Force, Json, verb


@verb("pack", example="pack ./run/bundles/cortex-a76 minilm.edgeq\npack ./run/bundles/x86-64-v3 ./minilm --executable")
def pack(
    bundle: Annotated[Path, typer.Argument(help="Bundle to pack.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    *,
    executable: Annotated[
        bool, typer.Option("--executable", help="Write one static program with the model in it.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a bundle as one file, which `edgeq-run` and libedgeq read like the folder.

    With --executable it is a program that needs nothing installed, not even a C library:
    `./minilm --text "..."`.
    """
    from edgeq.targets.bundle.packing import pack_bundle, pack_program

    (pack_program if executable else pack_bundle)(bundle, out, force=force)
    size = out.stat().st_size
    if as_json:
        print_json({"bundle": str(bundle), "file": str(out), "bytes": size})
    else:
        say(f"{out}: {size} bytes")
