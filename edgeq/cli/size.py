"""``size``: every stored byte of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_table, say
from edgeq.cli.verb import Json, verb
from edgeq.ledger import LedgerRow, grouped, ledger, megabytes, summary_line


@verb("size", example="size ./bundle\nsize ./my-bert-w8 --tensors\nsize ./my-bert-onnx/model.onnx --json")
def size(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder, ONNX file or folder, or bundle.")],
    *,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Print one row for every tensor.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the ledger: every stored byte, by tensor, and why some tensors stayed float."""
    book = ledger(path)
    if as_json:
        print_json(book.to_json())
        return
    print_table(
        [
            "tensor",
            "kind",
            "shape",
            "bits",
            "stored bits",
            "codes",
            "scales",
            "padding",
            "float",
            "why float",
        ],
        [_cells(row) for row in (book.rows if tensors else grouped(book.rows))],
        title=f"{book.form} {book.path}",
    )
    files, folder = megabytes(book.tensor_file_bytes), megabytes(book.folder_bytes)
    say(f"{book.weights:,} weights: {summary_line(book)}")
    say(f"files with tensors {files}, whole folder {folder}")


def _cells(row: LedgerRow) -> list[str]:
    amounts = (row.code_bytes, row.scale_bytes, row.padding_bytes, row.float_bytes)
    shape = " x ".join(str(extent) for extent in row.shape) or "scalar"
    stored = f"{row.stored_bits:.3f}"
    return [
        row.tensor, row.kind, shape, str(row.nominal_bits), stored,
        *(f"{amount:,}" if amount else "" for amount in amounts), row.reason or "",
    ]  # fmt: skip
