"""``size``, ``profile`` and ``report``: what a model weighs, how fast it is, and both in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_table, progress_bars, say
from edgeq.cli.verb import Json, verb
from edgeq.ledger import LedgerRow, grouped, ledger, megabytes, summary_line
from edgeq.stored import onnx_graphs


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


@verb(
    "profile",
    example="profile ./run/bundles/host\nprofile ./bundle --float-onnx ./my-bert-float-onnx --sequence 32",
)
def profile(
    bundle: Annotated[Path, typer.Argument(help="Bundle for this machine.")],
    *,
    float_onnx: Annotated[
        Path | None,
        typer.Option(
            help="ONNX folder of the float model, for the baselines; found by itself inside a run of deploy."
        ),
    ] = None,
    sequence: Annotated[
        int, typer.Option(min=1, help="Tokens in each text; for a decoder those before the step that is timed.")
    ] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Texts in one call.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads for every contestant.")] = 2,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds in which they take turns; 6 are the fewest for a claim.")
    ] = 30,
    reading: Annotated[
        bool, typer.Option("--reading", help="Encoder-decoders: time the reading of a source instead of a step.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure latency beside ONNX Runtime float32 and dynamic int8, taking turns in one run."""
    from edgeq.report.text import profile_lines
    from edgeq.targets.profiler import profile_bundle

    with progress_bars() as progress:
        measured = profile_bundle(
            bundle,
            float_onnx=float_onnx or _float_onnx_of_run(bundle),
            sequence=sequence,
            batch=batch,
            threads=threads,
            rounds=rounds,
            reading=reading,
            progress=progress,
        )
    if as_json:
        print_json(measured.to_json())
    else:
        for line in profile_lines(measured.to_json()):
            say(line)


def _float_onnx_of_run(bundle: Path) -> Path | None:
    """``RUN/float-onnx`` for a bundle at ``RUN/bundles/NAME``."""
    candidate = bundle.absolute().parent.parent / "float-onnx"
    return candidate if onnx_graphs(candidate) else None


@verb("report", example="report ./run")
def report(
    run: Annotated[Path, typer.Argument(help="Folder that 'edgeq deploy' wrote.")], *, as_json: Json = False
) -> None:
    """Write report.json and report.html of a run again from its results."""
    from edgeq.report import write_report

    summary = write_report(run)
    if as_json:
        print_json(summary)
    else:
        say(str(run / "report.html"))
