"""``parity`` and ``verify``: whether the results are those of the model, stage by stage and bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError


@verb("parity", example="parity ./run")
def parity(
    run: Annotated[Path, typer.Argument(help="Folder that 'edgeq deploy' wrote.")], *, as_json: Json = False
) -> None:
    """Compare torch, the ONNX reference, ONNX Runtime and every bundle; exit 1 if one breaks a rule."""
    from edgeq.deploy import check_parity
    from edgeq.report.text import parity_lines

    with progress_bars() as progress:
        result = check_parity(run, progress=progress)
    if as_json:
        print_json(result)
    else:
        for line in parity_lines(result):
            say(line)
    if not result["passed"]:
        raise typer.Exit(1)


@verb("verify", example="verify ./run/bundles/host\nverify ./run/bundles/cortex-a76")
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to check.")], *, as_json: Json = False
) -> None:
    """Check every file of a bundle against its sha256, then run its self-test bit for bit.

    A bundle for another processor runs under the emulator of that processor.
    """
    from edgeq.cli.self_test import self_test

    if not bundle.is_dir():
        raise UsageError(
            f"{bundle} is not a folder; give a bundle that 'edgeq compile' or 'edgeq deploy' wrote"
        )
    where = self_test(bundle)
    if as_json:
        print_json({"bundle": str(bundle), "files": "ok", "self_test": "ok", "where": where})
    else:
        say(f"{bundle}: files intact, self-test bit-identical ({where})")
