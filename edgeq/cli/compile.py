"""``compile``: ONNX in, a bundle out."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import note, print_json, progress_bars, say
from edgeq.cli.folders import Context, Out, check_existing_folder, file_sizes
from edgeq.cli.verb import Force, Json, verb


class Form(enum.StrEnum):
    """What is written."""

    BUNDLE = "bundle"
    SOURCES = "sources"


@verb(
    "compile",
    example="compile ./my-bert-onnx ./bundle --target host\ncompile ./my-bert-onnx ./pi5 --target cortex-a76\n"
    "compile ./my-bert-onnx ./app/model --target android-arm64 --form sources",
)
def compile_(
    onnx_folder: Annotated[Path, typer.Argument(metavar="ONNX", help="Folder that 'edgeq export' wrote.")],
    out: Out,
    *,
    target: Annotated[
        str, typer.Option("--target", "-t", help="Target (see 'edgeq targets') or a .toml file.")
    ] = "host",
    form: Annotated[
        Form, typer.Option("--form", help="'bundle', or 'sources' for a project with its own compiler.")
    ] = Form.BUNDLE,
    context: Context = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compile an exported model into a bundle for one processor, or into sources.

    `--form sources` writes the runtime's C sources, the compiled kernels, the model, a CMakeLists.txt and an example:
    for Android, Yocto, Buildroot, Xcode, Windows, and wherever code cannot be loaded.
    """
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.sources import compile_sources
    from edgeq.targets.bundle.writer import compile_bundle

    check_existing_folder(onnx_folder, "ONNX")
    chosen = load_target(target)
    remarks: list[str] = []
    with progress_bars() as progress:
        (compile_bundle if form is Form.BUNDLE else compile_sources)(
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
    if form is Form.SOURCES:
        note(f"build it: cmake -S {out} -B build && cmake --build build; {out / 'README.md'} says more")
    elif (out / "edgeq-run").is_file():
        note(f"copy {out} to the board and run: {out.name}/edgeq-run {out.name} --self-test")
    say(str(out))
