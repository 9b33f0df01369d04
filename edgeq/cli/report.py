"""``report``: the results of a run, or of several, in one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.console import print_json, say
from edgeq.cli.verb import Force, Json, verb
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.results import Result


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
        raise UsageError(f"{len(runs)} runs are compared in a new page; give its name with --out")
    result: Result
    if out is not None:
        result, page = compare_runs(runs, out, force=force), out
    else:
        result, page = write_report(runs[0], force=force), runs[0] / "report.html"
    if as_json:
        print_json(result.to_json())
    else:
        say(str(page))
