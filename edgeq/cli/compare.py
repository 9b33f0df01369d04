"""``compare``: paired tests between runs on the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.console import print_json, print_table, progress_bars, say
from edgeq.cli.verb import Json, verb

if TYPE_CHECKING:
    from edgeq.results import Difference


@verb("compare", example="compare ./run\ncompare ./run-w8 ./run-w4 ./run-w2")
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders that 'edgeq deploy' wrote with --eval-data.", metavar="RUN"),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Test whether runs differ: each against the first one, or a single run against its float model.

    The tests are paired: both models answered the same examples.
    """
    from edgeq.deploy.compare import compare as compare_runs

    with progress_bars() as progress:
        progress("comparing", 0, 1)
        result = compare_runs(runs)
        progress("comparing", 1, 1)
    if as_json:
        print_json(result.to_json())
        return
    first = result.first
    say(f"{result.metric} on {result.examples} examples; first: {first.label} {first.value:.4f}")
    columns = ["model", result.metric, "difference", "95% interval", "p", "verdict"]
    print_table(columns, [_cells(model) for model in result.models])


def _cells(model: Difference) -> list[str]:
    verdict: str = model.verdict
    if model.needed is not None:
        verdict += f" (about {model.needed:,} examples would)"
    numbers = [f"{model.value:.4f}", f"{model.difference:+.4f}", f"{model.low:+.4f} to {model.high:+.4f}"]
    return [model.label, *numbers, f"{model.p:.3g}", verdict]
