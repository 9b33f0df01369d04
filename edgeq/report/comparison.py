"""Several runs beside each other: quality against stored bytes."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.files import check_new_file, write_text
from edgeq.ledger import megabytes
from edgeq.report import plots
from edgeq.report.page import GENERATOR, document, resource, table
from edgeq.report.text import milliseconds, speedup
from edgeq.report.verdicts import LESS_IS_BETTER
from edgeq.results import About, Accuracy, ComparedModel, RunComparison, RunLedger, RunProfile, RunRecord

_MARKER = b'"format": "edgeq-comparison"'
_PARTS = ("deploy", "accuracy", "ledger", "profile")


@dataclasses.dataclass(frozen=True)
class _Run:
    """What is compared of a run."""

    folder: Path
    about: About
    accuracy: Accuracy
    ledger: RunLedger
    profile: RunProfile


def compare_runs(runs: Sequence[str | Path], out: str | Path, *, force: bool = False) -> RunComparison:
    """Writes a page with quality against stored bytes, and the same as JSON beside it.

    Args:
        runs: Folders that :func:`edgeq.deploy.deploy` wrote, with evaluation data that is the same for all.
        out: The page to write, such as ``comparison.html``; an earlier one is replaced.
        force: Replace files of these names even if they are something else.

    Returns:
        The contents of the JSON file.

    Raises:
        UsageError: If a folder is no finished run, runs were measured on different data or not at all, or something
            else has the name of the page or of the JSON file.
        FormatError: If a result is damaged.
    """
    out = Path(out)
    if out.suffix != ".html":
        raise UsageError(f"--out {out} should be the name of a page to write, such as comparison.html")
    check_new_file(out, verb="report", marker=GENERATOR, force=force)
    check_new_file(out.with_suffix(".json"), verb="report", marker=_MARKER, force=force)
    results = [_read(Path(run)) for run in runs]
    first = results[0].accuracy
    names = {result.about.name for result in results}
    models: dict[str, ComparedModel] = {}
    for result in results:
        _check_same_data(results[0], result)
        for model in _models(result, named=len(names) > 1):
            if model.is_float and model.label in models:
                continue
            label = model.label if model.label not in models else f"{model.label} ({result.folder.name})"
            models[label] = dataclasses.replace(model, label=label)
    ordered = sorted(models.values(), key=lambda model: (model.bytes, model.label))
    comparison = RunComparison(
        edgeq=edgeq.__version__,
        of=", ".join(sorted(names)),
        metric=first.metric,
        unit=first.unit,
        examples=first.examples,
        data=first.data,
        models=tuple(
            dataclasses.replace(one, outdone_by=_outdone_by(one, ordered, first.metric)) for one in ordered
        ),
    )
    comparison.write(out.with_suffix(".json"))
    write_text(out, _page(comparison))
    return comparison


def _read(run: Path) -> _Run:
    missing = [f"{part}.json" for part in _PARTS if not (run / f"{part}.json").is_file()]
    if missing:
        raise UsageError(f"{run} has no {' and no '.join(missing)}; give folders that 'edgeq deploy' has finished")
    return _Run(
        run,
        RunRecord.read(run / "deploy.json").about,
        Accuracy.read(run / "accuracy.json"),
        RunLedger.read(run / "ledger.json"),
        RunProfile.read(run / "profile.json"),
    )


def _check_same_data(first: _Run, other: _Run) -> None:
    for run in (first, other):
        if not run.accuracy.measured:
            raise UsageError(f"{run.folder} was not measured ({run.accuracy.reason}); deploy it with --eval-data")
    known = [(one.metric, one.examples, Path(one.data).name) for one in (first.accuracy, other.accuracy)]
    if known[0] != known[1]:
        told = [f"{metric} of {count} examples of {data}" for metric, count, data in known]
        raise UsageError(
            f"{first.folder} was measured by {told[0]}, {other.folder} by {told[1]}; measure both on one file"
        )


def _models(run: _Run, *, named: bool) -> Iterator[ComparedModel]:
    """The float model of a run, and the compressed one: as its first bundle, or as the checkpoint without any.

    Labels begin with the model's name only where runs of several models are compared.
    """
    stages = {name: score.value for name, score in run.accuracy.stages.items()}
    name = f"{run.about.name}, " if named else ""
    yield ComparedModel(f"{name}float32", True, run.accuracy.reference, run.ledger.float.totals.stored_bytes, 1.0)
    bundle, book = next(iter(run.ledger.bundles.items()), ("", run.ledger.checkpoint))
    measured = run.profile.measured.get(bundle)
    value = stages.get(f"bundle {bundle}", stages.get("torch compressed"))
    if value is None:
        raise FormatError(f"{run.folder / 'accuracy.json'} has no figure of the compressed model; deploy again")
    yield ComparedModel(
        f"{name}{run.about.recipe.name}",
        False,
        value,
        book.totals.stored_bytes,
        book.totals.ratio,
        median=measured.timings["edgeq"].median if measured else None,
        speedup=speedup(measured.speedups.get("onnxruntime float32")) if measured else "",
    )


def _outdone_by(model: ComparedModel, models: Sequence[ComparedModel], metric: str) -> str:
    sign = -1.0 if metric == LESS_IS_BETTER else 1.0
    better = [one for one in models if one.bytes < model.bytes and sign * one.value >= sign * model.value]
    return max(better, key=lambda one: sign * one.value).label if better else ""


def _page(comparison: RunComparison) -> str:
    metric, models = comparison.metric, comparison.models
    rows = [
        [
            model.label,
            f"{model.value:.4f}",
            megabytes(model.bytes),
            f"{model.ratio:.2f}x",
            "" if model.median is None else milliseconds(model.median),
            model.speedup,
            model.outdone_by,
        ]
        for model in models
    ]
    columns = ["model", metric, "weights", "vs float32", "median", "speed-up", "dominated by"]
    better = "lower is better" if metric == LESS_IS_BETTER else "higher is better"
    title = f"{comparison.of}: quality against stored bytes"
    body = string.Template(resource("comparison.html")).substitute(
        title=escape(title),
        about=(
            f"{escape(metric)} ({better}) on {comparison.examples} {escape(comparison.unit)} of "
            f"<code>{escape(Path(comparison.data).name)}</code>."
        ),
        plot=plots.quality_plot(
            [plots.SizePoint(model.label, model.bytes, model.value, model.is_float) for model in models], metric
        ),
        models=table(columns, rows),
    )
    return document(body, title=title, footer=f"edgeq {comparison.edgeq}")
