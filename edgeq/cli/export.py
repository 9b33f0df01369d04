"""``export``: a checkpoint in, ONNX out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.folders import Cache, Opset, Out, Task, check_existing_folder, file_sizes
from edgeq.cli.verb import Force, Json, verb


@verb("export", example="export ./my-bert-w8 ./my-bert-onnx\nexport ./my-bert-w8 ./my-bert-stock --flavour stock")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Compressed (or plain) checkpoint folder.")],
    out: Out,
    *,
    task: Task = None,
    opset: Opset = None,
    cache: Cache = "float16",
    flavour: Annotated[
        str,
        typer.Option(
            help="edgeq: ai.edgeq ops with bodies. stock: ONNX Runtime's own packed ops, fast without a library "
            "(release 1.23 or later; 2-bit weights 1.28), but activations are rounded in blocks."
        ),
    ] = "edgeq",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX: ai.edgeq ops, each with a body in standard ops, or ops of ONNX Runtime itself."""
    from edgeq.export.exporter import export_onnx

    check_existing_folder(checkpoint, "checkpoint")
    with progress_bars() as progress:
        options: dict[str, Any] = {"force": force, "task": task} | ({} if opset is None else {"opset": opset})
        remarks: list[str] = []
        file = export_onnx(
            checkpoint, out, cache=cache, flavour=flavour, progress=progress, remark=remarks.append, **options
        )
    if as_json:
        print_json({"out": str(out), "model": str(file), "files": file_sizes(out), "evaluation": remarks})
    else:
        for line in remarks:
            say(line)
        say(str(file))
