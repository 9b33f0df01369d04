"""``search.html``: what was promised, the front of bytes and error, and what each width of each layer costs."""

from __future__ import annotations

import string
from html import escape
from importlib import resources
from pathlib import Path

import edgeq
from edgeq.files import write_text
from edgeq.ledger import megabytes
from edgeq.report import plots
from edgeq.report.page import document, table
from edgeq.search.report import SearchReport, Structure, Tried
from edgeq.search.sensitivity import GRIDS


def write_page(report: SearchReport, file: Path) -> None:
    """Writes the page of a search.

    Args:
        report: What it came to.
        file: The page to write.
    """
    promise = report.promise
    title = f"Recipe for {megabytes(report.budget)}"
    body = string.Template(_template()).substitute(
        title=escape(title),
        promise=escape(promise_sentence(report)),
        command=escape(f"edgeq deploy {report.source} ./run --recipe {file.parent / 'recipe.toml'}"),
        front=plots.quality_plot(_measured(report), promise.metric),
        latency=_latency_plot(report),
        commands=table(
            ["", promise.metric, "weights", "latency", "calibration", "shapes", "command"],
            [_candidate(one, report, file.parent) for one in report.tried if one.on_front],
        ),
        tried=table(
            ["", promise.metric, "weights", "latency", "calibration", "shapes"],
            [_candidate(one, report, file.parent)[:-1] for one in report.tried],
        ),
        study=escape(study_sentence(report)),
        plot=plots.quality_plot(_predicted(report), "predicted change of the output"),
        layers=table(["layer", "chosen", *(_bits(bits) for bits in GRIDS)], _rows(report)),
    )
    write_text(file, document(body, title=title, footer=f"edgeq {edgeq.__version__}"))


def _template() -> str:
    return resources.files("edgeq.search").joinpath("search.html").read_text(encoding="utf-8")


def promise_sentence(report: SearchReport) -> str:
    """Says what the recipe is worth on data that the search did not see."""
    promise, best = report.promise, report.chosen.found
    is_text = promise.metric == "perplexity"
    change, unit = ("increase", "tokens") if is_text else ("loss", "examples")
    sentence = (
        f"{megabytes(best.bytes)} of weights, calibration {best.method}, {shapes_of(best.structure)}: "
        f"{promise.metric} {promise.value:.4f} against {promise.reference:.4f} of the float model on "
        f"{promise.examples} {unit} that the search did not see ({change} {promise.loss:+.4f}, 95% interval "
        f"{promise.low:+.4f} to {promise.high:+.4f})."
    )
    if best.latency is not None:
        sentence += f" Latency: {best.latency.milliseconds:.2f} ms ({best.latency.how})."
    if promise.limit is not None:
        sentence += f" The limit of {promise.limit} is {'kept' if promise.kept else 'NOT kept'}."
    return sentence


def study_sentence(report: SearchReport) -> str:
    """Says how many candidates there were, which were refused and why, and where the study lies."""
    study = report.study
    sentence = f"{study.candidates} of {study.asked} candidates were measured"
    if study.refused:
        sentence += f", {len(study.refused)} were refused (the last: {study.refused[-1].reason})"
    if study.interrupted:
        sentence += "; the search was interrupted, and the same command continues it"
    return f"{sentence}. The study {study.name} is in {study.storage}."


def shapes_of(structure: Structure) -> str:
    """Says in which shapes a candidate differs from the float model."""
    parts = [f"{structure.blocks} blocks"] if structure.blocks else []
    parts += [] if structure.factor == "none" else [structure.factor]
    parts += ["vocabulary pruned"] if structure.pruned else []
    return "; ".join(parts) or "shapes of the float model"


def _candidate(one: Tried, report: SearchReport, folder: Path) -> list[str]:
    found, latency = one.found, one.found.latency
    return [
        f"{one.number}{' (chosen)' if one.number == report.best else ''}",
        f"{found.value:.4f}",
        megabytes(found.bytes),
        "-" if latency is None else f"{latency.milliseconds:.2f} ms, {latency.how}",
        found.method,
        shapes_of(found.structure),
        f"edgeq deploy {report.source} ./run --recipe {folder / one.file}",
    ]


def _measured(report: SearchReport) -> list[plots.SizePoint]:
    """Candidates: those on the front in colour."""
    return [
        plots.SizePoint(str(one.number), one.found.bytes, one.found.value, is_float=not one.on_front)
        for one in report.tried
    ]


def _latency_plot(report: SearchReport) -> str:
    how = report.chosen.found.latency
    if how is None:
        return '<p class="small">Latency was not measured; --max-ms, --target or --on ask for it.</p>'
    points = [
        plots.LatencyPoint(str(one.number), one.found.latency.milliseconds, one.found.value, on_front=one.on_front)
        for one in report.tried
        if one.found.latency is not None
    ]
    return plots.latency_front_plot(points, report.promise.metric, how=how.how)


def _predicted(report: SearchReport) -> list[plots.SizePoint]:
    smallest = 1e-12  # a model whose output does not move at all still has a place on the axis
    points = [plots.SizePoint("", one.bytes, max(one.error, smallest), is_float=True) for one in report.front]
    chosen = report.chosen.found.predicted
    return [*points, plots.SizePoint("chosen", chosen.bytes, max(chosen.error, smallest))]


def _bits(bits: int) -> str:
    return "1 bit" if bits == 1 else f"{bits} bits"


def _rows(report: SearchReport) -> list[list[str]]:
    widths = report.chosen.found.widths
    return [
        [
            layer.name,
            _bits(widths[layer.name]),
            *(f"{choice.error:.2g}, {choice.bytes:,} B" for choice in layer.choices),
        ]
        for layer in report.layers
    ]
