"""``deploy``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.console import print_json, print_table, progress_bars, say
from edgeq.cli.stages import Cache, Context, RecipeName, Source
from edgeq.cli.verb import Json, verb


@verb(
    "deploy",
    example="deploy ./my-bert ./run --recipe ptq-w8a8 --target host\n"
    "deploy ./my-bert ./run -r ptq-w4a8 -t host -t cortex-a76 --eval-data dev.tsv",
)
def deploy(
    source: Source,
    out: Annotated[
        Path, typer.Argument(help="Folder of the run; an unfinished run goes on where it stopped.")
    ],
    *,
    recipe: RecipeName,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Target (see 'edgeq targets'); repeatable. Default: host."),
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option(help="Sentence pairs with scores, or sentences with labels (.tsv, .csv, .jsonl)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the report calls the model.")] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset, 18 to 23; the exporter's default if not given.")
    ] = None,
    cache: Cache = "float16",
    context: Context = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the latency measurement.")] = 20,
    sequence: Annotated[int, typer.Option(min=1, help="Tokens of a text in the latency measurement.")] = 128,
    threads: Annotated[int, typer.Option(min=1, help="Threads in the latency measurement.")] = 2,
    as_json: Json = False,
) -> None:
    """Do the whole job: compress, export, compile, evaluate, check parity, profile, report.

    Exits with 1 if a parity rule is broken.
    """
    from edgeq.deploy import deploy as deploy_model
    from edgeq.report.text import summary_table

    with progress_bars() as progress:
        result = deploy_model(
            source,
            out,
            recipe=recipe,
            targets=target or ["host"],
            name=name,
            eval_data=eval_data,
            opset=opset,
            cache=cache,
            context=context,
            rounds=rounds,
            sequence=sequence,
            threads=threads,
            progress=progress,
        )
    if as_json:
        print_json(result.report)
    else:
        print_table(*summary_table(result.report))
        for verdict in result.report["verdicts"]:
            if verdict["topic"] in ("accuracy", "parity"):
                say(f"{verdict['level']:4}  {verdict['sentence']}")
        say(f"report: {out / 'report.html'}")
    if not result.passed:
        raise typer.Exit(1)
