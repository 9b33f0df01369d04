"""``parity``: whether every stage computes the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.verb import Json, verb


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
        print_json(result.to_json())
    else:
        for line in parity_lines(result):
            say(line)
    if not result.passed:
        raise typer.Exit(1)
