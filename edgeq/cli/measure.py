"""``size`` and ``report``: what a model weighs, and the results of a run, or of several, in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_table, say
from edgeq.cli.verb import Force, Json, verb
from edgeq.errors import UsageError
from edgeq.ledger import LedgerRow, grouped, ledger, megabytes, summary_line


@verb("size", example="size ./bundle\nsize ./my-bert-w8 --tensors\nsize ./my-bert-onnx/model.onnx --json")
def size(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder, ONNX file or folder, or bundle.")],
    *,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="One row for every tensor, small ones too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the ledger: every stored byte, by tensor, and why floats stayed floats."""
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


@verb("report", example="report ./run\nreport ./run-w8 ./run-w4 ./run-w2 --out comparison.html")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'edgeq deploy' wrote.", metavar="RUN")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="For several runs: the page to write, quality against stored bytes.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write report.json and report.html of a run again, or one page that compares several runs."""
    from edgeq.report import compare_runs, write_report

    if len(runs) > 1 and out is None:
        raise UsageError(f"{len(runs)} runs are compared in a page of their own; give its name by --out")
    if out is not None:
        summary, page = compare_runs(runs, out, force=force), out
    else:
        summary, page = write_report(runs[0], force=force), runs[0] / "report.html"
    if as_json:
        print_json(summary)
    else:
        say(str(page))
