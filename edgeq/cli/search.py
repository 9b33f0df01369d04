"""``search``: the best recipe within a budget of bytes and milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.folders import Source
from edgeq.cli.training_options import CalibrationData
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError


@verb(
    "search",
    example="search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --max-loss 1% --calibration-data texts.txt\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --max-ms 6 --target cortex-a72 --hours 2\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --storage postgresql://me@host/studies",
)
def search(
    source: Source,
    out: Annotated[Path, typer.Argument(help="Folder of the search; one that was stopped goes on.")],
    *,
    eval_data: Annotated[
        Path,
        typer.Option(
            help="Sentence pairs with scores, or sentences with labels (.tsv, .csv, .jsonl), or a text for models that "
            "continue texts. The search chooses by one half; the promised figure is measured on the other."
        ),
    ],
    max_bytes: Annotated[str, typer.Option(help="Largest size of the weights as stored, such as 8MB or 7.5MiB.")],
    max_loss: Annotated[
        str | None,
        typer.Option(help="Largest loss: per cent of the float model's value (1%) or points (0.5); else exit code 1."),
    ] = None,
    loss_at: Annotated[
        str, typer.Option(help="What --max-loss looks at: the worse end of the 95% interval (interval), or middle.")
    ] = "interval",
    calibration_data: CalibrationData = None,
    max_ms: Annotated[
        float | None, typer.Option(help="Longest latency in milliseconds, measured here without --target or --on.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", "-t", help="Target of --max-ms: a name or a .toml file; one that is not here is estimated."
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="Measure latency on a device, such as ssh://pi@192.168.1.7; with its --target.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a call that is measured.")] = 2,
    sequence: Annotated[int | None, typer.Option(min=1, help="Tokens of a text that is measured.")] = None,
    shapes: Annotated[
        bool | None,
        typer.Option(
            "--shapes/--no-shapes",
            help="Try fewer blocks and factorised matrices too. Default: with --max-ms, since bits change no latency.",
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Try leaving out the tokens that the lines of this text file never need.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates, those of all who join counted together.")] = 8,
    hours: Annotated[float | None, typer.Option(min=0, help="No candidate begins after this time.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the study lies: a file, or the URL of a database that Optuna takes. The same command in other "
            "processes or on other machines joins it. Default: a file in OUT."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Calibration to try: nearest, error-feedback or distill; repeatable. Default: all three."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Splits the evaluation data, draws candidates.")] = 0,
    as_json: Json = False,
) -> None:
    """Find the bits of every matrix and table, the calibration and the shapes that lose least within a budget.

    OUT/recipe.toml is the recipe, OUT/search.html the reasons. Ctrl-C keeps the best so far; the same command goes on.
    Exits with 1 if --max-loss is not kept.
    """
    from edgeq.report.gates import parse_gates
    from edgeq.search import SearchRequest
    from edgeq.search import search as search_recipe
    from edgeq.search.page import promise_sentence, study_sentence
    from edgeq.search.space import METHODS

    gates = parse_gates(max_loss=max_loss, loss_at=loss_at, max_bytes=max_bytes, max_ms=max_ms)
    chosen = list(METHODS) if method is None else [name for name in METHODS if name in method]
    if method is not None and len(chosen) != len(set(method)):
        raise UsageError(f"--method should be one of {', '.join(METHODS)}, found {', '.join(method)}")
    request = SearchRequest(
        source=source,
        eval_data=eval_data,
        max_bytes=gates.max_bytes or 0,
        max_loss=gates.max_loss,
        calibration_data=calibration_data,
        methods=tuple(chosen),
        max_ms=gates.max_ms,
        shapes=shapes,
        vocabulary=vocabulary,
        trials=trials,
        hours=hours,
        storage=storage,
        target=target,
        device=on,
        threads=threads,
        sequence=sequence,
        seed=seed,
    )
    with progress_bars() as progress:
        result = search_recipe(request, out, progress=progress)
    if as_json:
        print_json(result.report)
    else:
        say(promise_sentence(result.report))
        say(study_sentence(result.report))
        say(str(out / "recipe.toml"))
    if result.interrupted:
        raise typer.Exit(130)
    if not result.passed:
        raise typer.Exit(1)
