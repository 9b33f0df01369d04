"""``deploy``: the main job."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import note, print_json, print_table, progress_bars, say
from edgeq.cli.folders import Cache, Context, Opset, RecipeName, Source, Task
from edgeq.cli.training_options import CalibrationData, TrainingOptions
from edgeq.cli.verb import Force, Json, verb

if TYPE_CHECKING:
    from edgeq.results import Report

Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Target (see 'edgeq targets'); repeatable. Default: host."),
]
EvalData = Annotated[
    Path | None,
    typer.Option(
        help="Data to measure the task on and, for recipes that train, to choose the best model with: sentence pairs "
        "with scores, sentences with labels, queries with documents (.tsv, .csv, .jsonl), words with tags "
        "(CoNLL, .jsonl), questions (SQuAD's .json, .jsonl), or a text file for masked language models and models "
        "that generate text."
    ),
]


def _gate(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Limits")


@dataclasses.dataclass(frozen=True)
class GateOptions:
    """Limits that decide whether the run has passed."""

    max_loss: Annotated[
        str | None,
        _gate(
            "Largest loss against the float model: per cent of its value (1%) or points (0.5: hundredths of an "
            "accuracy or correlation, units of a perplexity). Needs --eval-data."
        ),
    ] = None
    loss_at: Annotated[
        str,
        _gate(
            "Which loss --max-loss limits: the worse end of the measured loss's 95% interval (interval), or the "
            "measured loss itself (middle)."
        ),
    ] = "interval"
    max_bytes: Annotated[
        str | None, _gate("Largest size of the stored weights, such as 8MB or 7.5MiB.")
    ] = None
    max_ms: Annotated[float | None, _gate("Largest median latency in milliseconds, on this machine.")] = None


@verb(
    "deploy",
    example="deploy ./my-bert ./run --recipe ptq-w8a8 --target host\n"
    "deploy ./my-bert ./run -r ptq-w4a8 -t host -t cortex-a76 --eval-data dev.tsv\n"
    "deploy ./my-bert ./run -r calibrated-w4a8 --eval-data dev.tsv --max-loss 1% --max-bytes 12MB --max-ms 10\n"
    "deploy ./my-bert ./run -r xtc-l6-w1a8 --train-data train.tsv --eval-data dev.tsv --budget A",
)
def deploy(
    source: Source,
    out: Annotated[
        Path, typer.Argument(help="Folder of the run; an unfinished run continues where it stopped.")
    ],
    *,
    recipe: RecipeName,
    target: Targets = None,
    eval_data: EvalData = None,
    task: Task = None,
    calibration_data: CalibrationData = None,
    training: TrainingOptions,
    gates: GateOptions,
    name: Annotated[str | None, typer.Option(help="Name of the model in the report.")] = None,
    opset: Opset = None,
    cache: Cache = "float16",
    context: Context = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the latency measurement.")] = 20,
    sequence: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens per text in the latency measurement. Default: 128, or what the model takes."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads in the latency measurement.")] = 2,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Do the whole job: compress, export, compile, evaluate, check parity, profile, report.

    An unfinished run, its training included, continues where it stopped. Exits with 1 if a parity rule is broken or
    the model exceeds --max-loss, --max-bytes or --max-ms; the report says so too.
    """
    from edgeq.deploy import DeployRequest, carry_out
    from edgeq.report.gates import parse_gates

    request = DeployRequest(
        source=source,
        recipe=recipe,
        task=task,
        training=training.request(eval_data=None if training.train_data is None else eval_data),
        calibration_data=calibration_data,
        targets=target or ["host"],
        name=name,
        eval_data=eval_data,
        gates=parse_gates(**vars(gates)),
        opset=opset,
        cache=cache,
        context=context,
        rounds=rounds,
        sequence=sequence,
        threads=threads,
        force=force,
    )
    with progress_bars() as progress:
        result = carry_out(request, out, progress=progress, remark=note)
    _show(result.report, out, as_json=as_json)
    if not result.passed:
        raise typer.Exit(1)


def _show(report: Report, out: Path, *, as_json: bool) -> None:
    from edgeq.report.text import summary_table, taken_lines

    if as_json:
        print_json(report.to_json())
        return
    for line in taken_lines(report.about.taken):
        say(line)
    print_table(*summary_table(report))
    for verdict in report.verdicts:
        if verdict.topic in ("accuracy", "parity", "meaning", "gate"):
            say(f"{verdict.level:4}  {verdict.sentence}")
    say(f"report: {out / 'report.html'}")
