"""``ort-library``: edgeq's operators for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import note, print_json, progress_bars, say
from edgeq.cli.verb import Force, Json, verb


@verb("ort-library", example="ort-library ./lib\nort-library ./lib-arm --target cortex-a76")
def ort_library(
    out: Annotated[Path, typer.Argument(help="Folder for libedgeq_ort.so, or a file name that ends in .so.")],
    *,
    target: Annotated[
        str,
        typer.Option(
            "--target", "-t", help="Any target of the architecture: the library holds the kernels of all its levels."
        ),
    ] = "host",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build the library with which ONNX Runtime (1.17 or later) runs exported models fast."""
    from edgeq.export.ort import build_library
    from edgeq.targets.builtin.target import load_target, processor_levels

    chosen = load_target(target)
    with progress_bars() as progress:
        path = build_library(out, target=chosen, force=force, progress=progress)
    kernels = [level.isa for level in processor_levels(chosen.architecture)]
    if as_json:
        print_json({"library": str(path), "architecture": chosen.architecture, "kernels": kernels})
        return
    note(f"kernels for {', '.join(kernels)}; in Python: SessionOptions().register_custom_ops_library({str(path)!r})")
    say(str(path))
