"""``compile``: ONNX in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import note, print_json, progress_bars, say
from edgeq.cli.folders import Context, Out, check_existing_folder, file_sizes
from edgeq.cli.verb import Force, Json, verb


@verb(
    "compile",
    example="compile ./my-bert-onnx ./bundle --target host\ncompile ./my-bert-onnx ./pi5 --target cortex-a76",
)
def compile_(
    onnx_folder: Annotated[Path, typer.Argument(metavar="ONNX", help="Folder that 'edgeq export' wrote.")],
    out: Out,
    *,
    target: Annotated[
        str, typer.Option("--target", "-t", help="Target (see 'edgeq targets') or a .toml file.")
    ] = "host",
    context: Context = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compile an exported model into a bundle for one processor."""
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.writer import compile_bundle

    check_existing_folder(onnx_folder, "ONNX")
    chosen = load_target(target)
    remarks: list[str] = []
    with progress_bars() as progress:
        compile_bundle(
            onnx_folder,
            out,
            target=chosen,
            context=context,
            force=force,
            progress=progress,
            remark=remarks.append,
        )
    if as_json:
        print_json({"out": str(out), "target": chosen.name, "files": file_sizes(out), "remarks": remarks})
        return
    for line in remarks:
        note(line)
    if (out / "edgeq-run").is_file():
        note(f"copy {out} to the board and run: {out.name}/edgeq-run {out.name} --self-test")
    say(str(out))
