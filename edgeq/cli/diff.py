"""``diff``: which layer differs first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.verb import Json, verb


@verb("diff", example="diff ./run\ndiff ./run --backend onnxruntime --layers")
def diff(
    run: Annotated[Path, typer.Argument(help="Folder that 'edgeq deploy' wrote.")],
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", "-b", help="onnx-reference, onnxruntime or tvm; repeatable. Default: all possible."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Print every layer, not only the first outside its envelope.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the layers in order and name the first that leaves its envelope; exit 1 if one does.

    The envelope of a layer is the largest difference from PyTorch that rounding can explain. Each layer is compared on
    PyTorch's own input (isolated) and on what the layers before it computed (accumulated).
    """
    from edgeq.parity import diff_layers
    from edgeq.report.text import diff_lines
    from edgeq.results import DiffReport

    with progress_bars() as progress:
        found = DiffReport(str(run), tuple(diff_layers(run, backends=backend or None, progress=progress)))
    if as_json:
        print_json(found.to_json())
    else:
        for each in found.backends:
            for line in diff_lines(each, every_layer=layers):
                say(line)
    if not found.within:
        raise typer.Exit(1)
