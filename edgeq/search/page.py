"""``search.html``: what was promised, the front of bytes and error, and what each width of each layer costs."""

from __future__ import annotations

import string
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import edgeq
from edgeq.files import write_text
from edgeq.ledger import megabytes
from edgeq.report import plots
from edgeq.report.page import document, table
from edgeq.search.sensitivity import GRIDS


def write_page(report: dict[str, Any], file: Path) -> None:
    """Writes the page of a search.

    Args:
        report: Contents of ``search.json``.
        file: The page to write.
    """
    promise, best = report["promise"], report["best"]
    title = f"Recipe for {megabytes(report['budget'])}"
    body = string.Template(_template()).substitute(
        title=escape(title),
        promise=escape(promise_sentence(report)),
        command=escape(f"edgeq deploy {report['source']} ./run --recipe {file.parent / 'recipe.toml'}"),
        plot=plots.quality_plot(_points(report), "predicted change of the output"),
        tried=table(
            ["calibration", promise["metric"], "weights"],
            [[one["method"], f"{one['value']:.4f}", megabytes(one["bytes"])] for one in report["tried"]],
            marked=[one["method"] != best["method"] and len(report["tried"]) > 1 for one in report["tried"]],
        ),
        layers=table(["layer", "chosen", *(f"{bits} bits" for bits in GRIDS)], _rows(report)),
    )
    write_text(file, document(body, title=title, footer=f"edgeq {edgeq.__version__}"))


def _template() -> str:
    return resources.files("edgeq.search").joinpath("search.html").read_text(encoding="utf-8")


def promise_sentence(report: dict[str, Any]) -> str:
    """Says what the recipe is worth on data that the search did not see."""
    promise, best = report["promise"], report["best"]
    change = "increase" if promise["metric"] == "perplexity" else "loss"
    sentence = (
        f"{megabytes(best['bytes'])} of weights, calibrated by {best['method']}: {promise['metric']} "
        f"{promise['value']:.4f} against {promise['float']:.4f} of the float model on {promise['examples']} that the "
        f"search did not see ({change} {promise['loss']:+.4f}, 95% interval {promise['low']:+.4f} to "
        f"{promise['high']:+.4f})."
    )
    if promise["limit"] is not None:
        sentence += f" The limit of {promise['limit']} is {'kept' if promise['kept'] else 'NOT kept'}."
    return sentence


def _points(report: dict[str, Any]) -> list[dict[str, Any]]:
    smallest = 1e-12  # a model whose output does not move at all still has a place on the axis
    points = [
        {"label": "", "bytes": one["bytes"], "value": max(one["error"], smallest), "is_float": True}
        for one in report["front"]
    ]
    chosen = report["predicted"]
    own = {"label": "chosen", "bytes": chosen["bytes"], "value": max(chosen["error"], smallest), "is_float": False}
    return [*points, own]


def _rows(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            layer["name"],
            f"{report['widths'][layer['name']]} bits",
            *(f"{choice['error']:.2g}, {choice['bytes']:,} B" for choice in layer["choices"]),
        ]
        for layer in report["layers"]
    ]
