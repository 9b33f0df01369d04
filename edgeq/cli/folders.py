"""Arguments that the stages share, and what is asked of the folders between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.errors import UsageError
from edgeq.formats.tasks import PIPELINES

Out = Annotated[
    Path, typer.Argument(help="Folder to write; an earlier output of this verb is replaced at the end.")
]
Source = Annotated[str, typer.Argument(help="Folder of a Hugging Face checkpoint, or a hub name.")]
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Built-in recipe (see 'edgeq recipes') or a .toml file.")
]
Task = Annotated[
    str | None,
    typer.Option(
        help=f"Task of the model: {', '.join(PIPELINES)}. Default: what config.json says, and feature-extraction for a "
        "model that was only pre-trained."
    ),
]
Opset = Annotated[int | None, typer.Option(help="ONNX opset, 18 to 23. Default: the exporter's.")]
Cache = Annotated[
    str,
    typer.Option(
        help="Type of the key/value cache of models that generate text: float16, float32, or int8 with a scale for "
        "each token and head, about half as large as float16."
    ),
]
Context = Annotated[
    int | None,
    typer.Option(help="Models that generate text: largest number of tokens, prompt included. Default: all positions."),
]


def check_existing_folder(path: Path, what: str) -> None:
    """Refuses an input that is no folder.

    Raises:
        UsageError: If it is not; ``what`` says which stage's folder it should be.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path} is not a folder; give the {what} folder that the stage before this one wrote"
        )


def file_sizes(folder: Path) -> dict[str, int]:
    """Returns the bytes of each file of a folder."""
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
