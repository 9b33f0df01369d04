"""The report's pictures, as SVG that stands inside an HTML page and refers to nothing outside it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.figure

from edgeq.ledger import megabytes

_BLUE, _ORANGE, _GREEN, _GREY, _RED = "#0072b2", "#e69f00", "#009e73", "#999999", "#d55e00"
"""Colours that colour-blind readers tell apart (Okabe and Ito's set)."""
_WIDTH = 7.2
_BYTES = {"codes": _BLUE, "scales": _ORANGE, "padding": _GREY, "float": _GREEN}
_OPERATORS_SHOWN = 10

_STYLE = {
    "svg.fonttype": "none",  # letters stay letters: smaller, searchable, in the reader's font
    "svg.hashsalt": "edgeq",  # the same results give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def accuracy_plot(accuracy: dict[str, Any]) -> str:
    """Bars of the task metric, one a stage; the float model is grey."""
    stages = accuracy["stages"]
    names = list(stages)
    values = [stages[name]["value"] for name in names]
    colours = [_BLUE if name in accuracy["losses"] else _GREY for name in names]
    labels = [f"{value:.4f}" for value in values]
    return _bars("accuracy", names, values, colours, labels, xlabel=accuracy["metric"])


def size_plot(ledger: dict[str, Any]) -> str:
    """Stacked bars of stored bytes: float32, checkpoint and every bundle."""
    books = {"float32": ledger["float"], "checkpoint": ledger["checkpoint"]}
    books |= {f"bundle {name}": book for name, book in ledger["bundles"].items()}
    names = list(books)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(len(names))
        left = [0.0] * len(names)
        for part, colour in _BYTES.items():
            widths = [books[name]["totals"][f"{part.removesuffix('s')}_bytes"] / 1e6 for name in names]
            axes.barh(names, widths, left=left, color=colour, label=part, height=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, name in enumerate(names):
            totals = books[name]["totals"]
            axes.text(left[row], row, f" {megabytes(totals['stored_bytes'])}", va="center")
        axes.set_xlim(0, 1.2 * max(left))
        axes.set_xlabel("MB of tensors as stored")
        axes.invert_yaxis()
        axes.legend(loc="lower right", frameon=False, ncols=len(_BYTES))
        return _svg(figure, "size")


def latency_plot(measured: dict[str, Any]) -> str:
    """Bars of median latency with a line to the 95th percentile."""
    timings = measured["timings"]
    names = list(timings)
    medians = [1e3 * timings[name]["median"] for name in names]
    tails = [1e3 * (timings[name]["p95"] - timings[name]["median"]) for name in names]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(len(names))
        colours = [_BLUE if name == "edgeq" else _GREY for name in names]
        axes.barh(names, medians, xerr=[[0.0] * len(names), tails], color=colours, height=0.6, capsize=3)
        for row, median in enumerate(medians):
            axes.text(0, row, f" {median:.2f} ms", va="center", color="white", weight="bold")
        axes.set_xlabel("milliseconds a call: median, and a line to the 95th percentile")
        axes.invert_yaxis()
        return _svg(figure, f"latency-{_call_of(measured)}")


def operator_plot(measured: dict[str, Any]) -> str:
    """Bars of the share that each kernel has in the time of all."""
    operators = measured["operators"][:_OPERATORS_SHOWN]
    names = [operator["name"] for operator in operators]
    shares = [100 * operator["share"] for operator in operators]
    labels = [f"{share:.1f}%" for share in shares]
    xlabel = "% of the kernels' time"
    colours = [_BLUE] * len(names)
    return _bars(f"operators-{_call_of(measured)}", names, shares, colours, labels, xlabel=xlabel)


def _call_of(measured: dict[str, Any]) -> str:
    """A name for what was timed; one bundle may be timed at two things."""
    return measured["target"] + ("-reading" if measured.get("reading") else "")


def _bars(
    plot: str,
    names: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    labels: Sequence[str],
    *,
    xlabel: str,
) -> str:
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(len(names))
        axes.barh(range(len(names)), values, color=colours, height=0.6)
        axes.set_yticks(range(len(names)), names)
        for row, (value, label) in enumerate(zip(values, labels, strict=True)):
            axes.text(max(value, 0.0), row, f" {label}", va="center", color=_RED if value < 0 else "black")
        axes.set_xlim(min(0.0, *values), 1.15 * max(0.01, *values))
        axes.set_xlabel(xlabel)
        axes.invert_yaxis()
        return _svg(figure, plot)


def _figure(rows: int) -> tuple[matplotlib.figure.Figure, Any]:
    # Figure, not pyplot: no display, no global state, nothing to close.
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 0.9 + 0.32 * rows), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: matplotlib.figure.Figure, name: str) -> str:
    """Renders a figure without what only a file of its own needs, and with ids that are unique in a page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1).strip()
