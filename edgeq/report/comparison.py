"""Several runs beside each other: quality against stored bytes."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.files import check_new_file, write_json, write_text
from edgeq.formats.json_file import read_json_object
from edgeq.ledger import megabytes
from edgeq.report import plots
from edgeq.report.page import GENERATOR, document, resource, table
from edgeq.report.text import milliseconds, speedup
from edgeq.report.verdicts import LESS_IS_BETTER
from edgeq.results import Accuracy, RunLedger, RunProfile

_MARKER = b'"format": "edgeq-comparison"'
_PARTS = ("deploy", "accuracy", "ledger", "profile")


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of a comparison: a run's compressed one, or the float one that it came from.

    Attributes:
        label: Name of the model and its recipe.
        is_float: Whether it is not compressed.
        value: Its metric.
        bytes: Bytes of its tensors as stored.
        ratio: How many times smaller than float32 that is.
        median: Median latency in seconds; None if it was not measured.
        speedup: What its run says against ONNX Runtime float32.
        outdone_by: Label of a model that is smaller and no worse; empty if there is none.
    """

    label: str
    is_float: bool
    value: float
    bytes: int
    ratio: float
    median: float | None = None
    speedup: str = ""
    outdone_by: str = ""


def compare_runs(runs: Sequence[str | Path], out: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Writes a page with quality against stored bytes, and the same as JSON beside it.

    Args:
        runs: Folders that :func:`edgeq.deploy.deploy` wrote, with evaluation data that is the same for all.
        out: The page to write, such as ``comparison.html``; an earlier one is replaced.
        force: Replace files of these names even if they are something else.

    Returns:
        The contents of the JSON file: what was compared by which ``metric`` on what, and ``models``, the smallest
        first.

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
    first: Accuracy = results[0]["accuracy"]
    names = {str(result["deploy"].get("about", {}).get("name")) for result in results}
    models: dict[str, Model] = {}
    for run, result in zip(runs, results, strict=True):
        _check_same_data(first, result["accuracy"], runs[0], run)
        try:
            for model in _models(result, named=len(names) > 1):
                if model.is_float and model.label in models:
                    continue
                label = model.label if model.label not in models else f"{model.label} ({Path(run).name})"
                models[label] = dataclasses.replace(model, label=label)
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise FormatError(f"a result in {run} is damaged ({error!r}); deploy again") from error
    ordered = sorted(models.values(), key=lambda model: (model.bytes, model.label))
    ordered = [dataclasses.replace(one, outdone_by=_outdone_by(one, ordered, first.metric)) for one in ordered]
    facts = {key: getattr(first, key) for key in ("metric", "examples", "data", "unit")}
    comparison = {"format": "edgeq-comparison", "format_version": 1, "edgeq": edgeq.__version__, **facts}
    comparison["of"] = ", ".join(sorted(names))
    comparison["models"] = [dataclasses.asdict(model) for model in ordered]
    write_json(out.with_suffix(".json"), comparison)
    write_text(out, _page(comparison, ordered))
    return comparison


def _read(run: Path) -> dict[str, Any]:
    missing = [f"{part}.json" for part in _PARTS if not (run / f"{part}.json").is_file()]
    if missing:
        raise UsageError(f"{run} has no {' and no '.join(missing)}; give folders that 'edgeq deploy' has finished")
    parts: dict[str, Any] = {part: read_json_object(run / f"{part}.json") for part in _PARTS}
    return parts | {
        "accuracy": Accuracy.from_json(parts["accuracy"], run / "accuracy.json"),
        "ledger": RunLedger.from_json(parts["ledger"], run / "ledger.json"),
        "profile": RunProfile.from_json(parts["profile"], run / "profile.json"),
    }


def _check_same_data(first: Accuracy, other: Accuracy, first_run: str | Path, run: str | Path) -> None:
    for accuracy, folder in ((first, first_run), (other, run)):
        if not accuracy.measured:
            raise UsageError(f"{folder} was not measured ({accuracy.reason}); deploy it with --eval-data")
    known = [(one.metric, one.examples, Path(one.data).name) for one in (first, other)]
    if known[0] != known[1]:
        told = [f"{metric} of {count} examples of {data}" for metric, count, data in known]
        raise UsageError(f"{first_run} was measured by {told[0]}, {run} by {told[1]}; measure both on one file")


def _models(result: dict[str, Any], *, named: bool) -> Iterator[Model]:
    """The float model of a run, and the compressed one: as its first bundle, or as the checkpoint without any.

    Labels begin with the model's name only where runs of several models are compared.
    """
    accuracy, ledger, about = result["accuracy"], result["ledger"], result["deploy"]["about"]
    stages = {name: score.value for name, score in accuracy.stages.items()}
    name = f"{about['name']}, " if named else ""
    yield Model(f"{name}float32", True, accuracy.reference, ledger.float.totals.stored_bytes, 1.0)
    bundle, book = next(iter(ledger.bundles.items()), ("", ledger.checkpoint))
    measured = result["profile"].measured.get(bundle)
    stage = f"bundle {bundle}"
    yield Model(
        f"{name}{about['recipe']['name']}",
        False,
        stages[stage if stage in stages else "torch compressed"],
        book.totals.stored_bytes,
        book.totals.ratio,
        median=measured.timings["edgeq"].median if measured else None,
        speedup=speedup(measured.speedups.get("onnxruntime float32")) if measured else "",
    )


def _outdone_by(model: Model, models: Sequence[Model], metric: str) -> str:
    sign = -1.0 if metric == LESS_IS_BETTER else 1.0
    better = [one for one in models if one.bytes < model.bytes and sign * one.value >= sign * model.value]
    return max(better, key=lambda one: sign * one.value).label if better else ""


def _page(comparison: dict[str, Any], models: Sequence[Model]) -> str:
    metric = comparison["metric"]
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
    columns = ["model", metric, "weights", "vs float32", "median", "speed-up", "outdone by"]
    better = "less is better" if metric == LESS_IS_BETTER else "more is better"
    title = f"{comparison['of']}: quality against stored bytes"
    body = string.Template(resource("comparison.html")).substitute(
        title=escape(title),
        about=(
            f"{escape(metric)} ({better}) on {comparison['examples']} {escape(comparison['unit'])} of "
            f"<code>{escape(Path(comparison['data']).name)}</code>."
        ),
        plot=plots.quality_plot([dataclasses.asdict(model) for model in models], metric),
        models=table(columns, rows),
    )
    return document(body, title=title, footer=f"edgeq {comparison['edgeq']}")
