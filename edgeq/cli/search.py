"""``search``: the best recipe within a budget of bytes and milliseconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import print_json, progress_bars, say
from edgeq.cli.folders import Source
from edgeq.cli.training_options import CalibrationData
from edgeq.cli.verb import INTERRUPTED, Json, verb
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.search.report import MethodSet, SearchReport


def _latency(text: str, *names: str, least: int | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="Latency", min=least)


def _tried(text: str, *names: str, least: int | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="What is tried, and how long", min=least)


@dataclasses.dataclass(frozen=True)
class LatencyOptions:
    """What latency is asked for, and where it is told."""

    max_ms: Annotated[
        float | None, _latency("Largest latency in milliseconds, measured here unless --target or --on is given.")
    ] = None
    target: Annotated[
        str | None,
        _latency(
            "Target of --max-ms: a name or a .toml file; another processor than this one is estimated.",
            "--target",
            "-t",
        ),
    ] = None
    on: Annotated[
        str | None, _latency("Measure latency on a device, such as ssh://pi@192.168.1.7; needs its --target.")
    ] = None
    threads: Annotated[int, _latency("Threads in the latency measurement.", least=1)] = 2
    sequence: Annotated[int | None, _latency("Tokens in each text of the latency measurement.", least=1)] = None

    def fields(self) -> dict[str, Any]:
        """Returns them as fields of :class:`edgeq.search.request.SearchRequest`; ``max_ms`` is read with the limits."""
        return {"target": self.target, "device": self.on, "threads": self.threads, "sequence": self.sequence}


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """What is tried, and how long."""

    method: Annotated[
        list[str] | None,
        _tried("Calibration to try: nearest, error-feedback or distill; repeatable. Default: all three."),
    ] = None
    shapes: Annotated[
        bool | None,
        _tried(
            "Try fewer blocks and factorised matrices too. Default: with --max-ms, since bits change no latency.",
            "--shapes/--no-shapes",
        ),
    ] = None
    vocabulary: Annotated[
        Path | None, _tried("Try leaving out the tokens that the lines of this text file never need.")
    ] = None
    trials: Annotated[int, _tried("Number of candidates, of all processes that share the study.", least=1)] = 8
    hours: Annotated[float | None, _tried("Start no candidate after this many hours.", least=0)] = None
    storage: Annotated[
        str | None,
        _tried(
            "Where the study is stored: a file, or the URL of a database that Optuna takes. The same command in other "
            "processes or on other machines joins the study. Default: a file in OUT."
        ),
    ] = None
    seed: Annotated[int, _tried("Seed that splits the evaluation data and chooses candidates.", least=0)] = 0

    def fields(self) -> dict[str, Any]:
        """Returns them as fields of :class:`edgeq.search.request.SearchRequest`."""
        return {name: value for name, value in vars(self).items() if name != "method"} | {"methods": self.methods()}

    def methods(self) -> tuple[MethodSet, ...]:
        """Returns the methods of calibration to try, the cheapest first.

        Raises:
            UsageError: If one is not known.
        """
        from edgeq.search.space import METHODS

        if self.method is None:
            return tuple(METHODS)
        if unknown := [name for name in self.method if name not in METHODS]:
            raise UsageError(f"--method should be one of {', '.join(METHODS)}, found {', '.join(unknown)}")
        return tuple(name for name in METHODS if name in self.method)


@verb(
    "search",
    example="search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --max-loss 1% --calibration-data texts.txt\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --max-ms 6 --target cortex-a72 --hours 2\n"
    "search ./my-bert ./search --eval-data dev.tsv --max-bytes 8MB --storage postgresql://me@host/studies",
)
def search(
    source: Source,
    out: Annotated[Path, typer.Argument(help="Folder of the search; one that was stopped continues.")],
    *,
    eval_data: Annotated[
        Path,
        typer.Option(
            help="Sentence pairs with scores, sentences with labels (.tsv, .csv, .jsonl), or a text for models "
            "that generate text. The search chooses by one half; the promised quality is measured on the other."
        ),
    ],
    max_bytes: Annotated[str, typer.Option(help="Largest size of the stored weights, such as 8MB or 7.5MiB.")],
    max_loss: Annotated[
        str | None,
        typer.Option(help="Largest loss: per cent of the float model's value (1%) or points (0.5); else exit code 1."),
    ] = None,
    loss_at: Annotated[
        str,
        typer.Option(
            help="Which loss --max-loss limits: interval (worse end of its 95% interval) or middle (measured loss)."
        ),
    ] = "interval",
    calibration_data: CalibrationData = None,
    latency: LatencyOptions,
    study: StudyOptions,
    as_json: Json = False,
) -> None:
    """Find the recipe with the smallest loss within a size limit: bits, calibration and shapes.

    OUT/recipe.toml is the recipe, OUT/search.html shows how it was chosen. Ctrl-C keeps the best so far; the same
    command continues. Exits with 1 if --max-loss is exceeded.
    """
    from edgeq.report.gates import parse_gates
    from edgeq.search import SearchRequest
    from edgeq.search import search as search_recipe

    gates = parse_gates(max_loss=max_loss, loss_at=loss_at, max_bytes=max_bytes, max_ms=latency.max_ms)
    request = SearchRequest(
        source=source,
        eval_data=eval_data,
        max_bytes=gates.max_bytes or 0,
        max_loss=gates.max_loss,
        calibration_data=calibration_data,
        max_ms=gates.max_ms,
        **latency.fields(),
        **study.fields(),
    )
    with progress_bars() as progress:
        result = search_recipe(request, out, progress=progress)
    _show(result.report, out, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not result.passed:
        raise typer.Exit(1)


def _show(report: SearchReport, out: Path, *, as_json: bool) -> None:
    from edgeq.results.base import plain
    from edgeq.search.page import promise_sentence, study_sentence

    if as_json:
        print_json(plain(report))
        return
    for line in (promise_sentence(report), study_sentence(report), str(out / "recipe.toml")):
        say(line)
