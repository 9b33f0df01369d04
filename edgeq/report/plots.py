"""The report's pictures, as SVG that stands inside an HTML page and refers to nothing outside it."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.figure
from matplotlib.transforms import Bbox

from edgeq.ledger import megabytes
from edgeq.results import Accuracy, Profile, RunLedger, TrainedStage, Training

_BLUE, _ORANGE, _GREEN, _GREY, _RED = "#0072b2", "#e69f00", "#009e73", "#999999", "#d55e00"
"""Colours that colour-blind readers tell apart (Okabe and Ito's set)."""
_PALE = "#e6e9ec"
"""Grid lines; the page has its own colour for them, light or dark."""
_WIDTH = 7.2
_BYTES = {"codes": _BLUE, "scales": _ORANGE, "padding": _GREY, "float": _GREEN}
_OPERATORS_SHOWN = 10
_FAR_APART = 20.0
"""Ratio of the largest to the smallest value above which an axis is logarithmic."""
_LABEL_PLACES = {
    (7, 0): ("left", "center"), (-7, 0): ("right", "center"), (0, 7): ("center", "bottom"), (0, -7): ("center", "top"),
    (7, 12): ("left", "center"), (7, -12): ("left", "center"), (-7, 12): ("right", "center"),
}  # fmt: skip
"""Offsets of a label from its point in the order in which they are tried, and how the text lies there."""

_STYLE = {
    "svg.fonttype": "none",  # letters stay letters: smaller, searchable, in the reader's font
    "svg.hashsalt": "edgeq",  # the same results give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclasses.dataclass(frozen=True)
class SizePoint:
    """A model in a picture of quality against stored bytes; float ones are grey."""

    label: str
    bytes: float
    value: float
    is_float: bool = False


@dataclasses.dataclass(frozen=True)
class LatencyPoint:
    """A model in a picture of quality against latency; grey where another one is better in everything."""

    label: str
    milliseconds: float
    value: float
    on_front: bool


def accuracy_plot(accuracy: Accuracy) -> str:
    """Bars of the task metric, one a stage; the float model is grey."""
    stages = accuracy.stages
    names = list(stages)
    values = [stages[name].value for name in names]
    colours = [_BLUE if name in accuracy.losses else _GREY for name in names]
    labels = [f"{value:.4f}" for value in values]
    return _bars("accuracy", names, values, colours, labels, xlabel=accuracy.metric)


def size_plot(ledger: RunLedger) -> str:
    """Stacked bars of stored bytes: float32, checkpoint and every bundle."""
    books = {"float32": ledger.float, "checkpoint": ledger.checkpoint}
    books |= {f"bundle {name}": book for name, book in ledger.bundles.items()}
    names = list(books)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(len(names))
        left = [0.0] * len(names)
        for part, colour in _BYTES.items():
            widths = [getattr(books[name].totals, f"{part.removesuffix('s')}_bytes") / 1e6 for name in names]
            axes.barh(names, widths, left=left, color=colour, label=part, height=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, name in enumerate(names):
            _write_beside(axes, left[row], row, megabytes(books[name].totals.stored_bytes))
        axes.set_xlim(0, 1.2 * max(left))
        axes.set_xlabel("MB of tensors as stored")
        axes.invert_yaxis()
        axes.legend(loc="lower right", frameon=False, ncols=len(_BYTES))
        return _svg(figure, "size")


def latency_plot(measured: Profile) -> str:
    """Bars of median latency with a line to the 95th percentile."""
    timings = measured.timings
    names = list(timings)
    medians = [1e3 * timings[name].median for name in names]
    tails = [1e3 * (timings[name].p95 - timings[name].median) for name in names]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(len(names))
        colours = [_BLUE if name == "edgeq" else _GREY for name in names]
        axes.barh(names, medians, xerr=[[0.0] * len(names), tails], color=colours, height=0.6, capsize=3)
        for row, (median, tail) in enumerate(zip(medians, tails, strict=True)):
            _write_beside(axes, median + tail, row, f"median {median:.2f} ms")  # in a short bar it would not fit
        axes.set_xlim(0.0, 1.25 * max(median + tail for median, tail in zip(medians, tails, strict=True)))
        axes.set_xlabel("milliseconds per call: median, and a line to the 95th percentile")
        axes.invert_yaxis()
        return _svg(figure, f"latency-{_call_of(measured)}")


def operator_plot(measured: Profile) -> str:
    """Bars of the share that each kernel has in the time of all."""
    operators = measured.operators[:_OPERATORS_SHOWN]
    names = [operator.name for operator in operators]
    shares = [100 * operator.share for operator in operators]
    labels = [f"{share:.1f}%" for share in shares]
    xlabel = "% of the kernels' time"
    colours = [_BLUE] * len(names)
    return _bars(f"operators-{_call_of(measured)}", names, shares, colours, labels, xlabel=xlabel)


def training_plot(training: Training) -> str:
    """The loss of every step that was logged and, below it, what evaluations found; stages apart."""
    metric = training.metric
    rows = 1 + (metric is not None)
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(_WIDTH, 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        panels[0].plot(*_columns(training.loss), color=_BLUE, linewidth=1.2)
        panels[0].set_ylabel("training loss")
        if metric is not None:
            found = [(one.step, one.values.get(metric)) for one in training.evaluations]
            points = [(step, value) for step, value in found if value is not None]
            chosen = [point for point in points if point[0] in {stage.weights_of for stage in training.stages}]
            panels[1].plot(*_columns(points), color=_GREEN, marker="o", markersize=3, linewidth=1.2)
            if chosen:
                label = "weights that a stage ended with"
                panels[1].plot(*_columns(chosen), "o", color=_ORANGE, markersize=6, label=label)
                panels[1].legend(frameon=False)
            panels[1].set_ylabel(metric)
        _mark_stages(panels, training.stages)
        panels[-1].set_xlabel("step")
        return _svg(figure, "training")


def _mark_stages(panels: Any, stages: Sequence[TrainedStage]) -> None:
    """A line where a stage ends and another begins, and the names above."""
    start = 0
    for stage in stages if len(stages) > 1 else ():
        middle, start = start + stage.steps / 2, start + stage.steps
        panels[0].annotate(
            stage.name, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=_GREY
        )
        for panel in panels:
            panel.axvline(start, color=_GREY, linewidth=0.6, linestyle=":")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def quality_plot(points: Sequence[SizePoint], metric: str) -> str:
    """Quality against stored bytes: a point a model, the float ones grey.

    Args:
        points: The models.
        metric: What the values are.
    """
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(_WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        sizes = [point.bytes / 1e6 for point in points]
        for size, point in zip(sizes, points, strict=True):
            axes.plot(size, point.value, "o", color=_GREY if point.is_float else _BLUE, markersize=6)
        axes.set_xscale("log", base=2)
        axes.set_xlim(2 ** math.floor(math.log2(min(sizes)) - 0.1), 2 ** math.ceil(math.log2(max(sizes)) + 0.1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        values = [point.value for point in points]
        if min(values) > 0 and max(values) > _FAR_APART * min(values):
            axes.set_yscale("log")  # one ruined model would press all others together
        axes.margins(y=0.2)
        axes.grid(color=_PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("MB of tensors as stored; each line doubles")
        axes.set_ylabel(metric)
        _label_points(axes, [(size, point.value, point.label) for size, point in zip(sizes, points, strict=True)])
        return _svg(figure, "quality")


def latency_front_plot(points: Sequence[LatencyPoint], metric: str, *, how: str) -> str:
    """Quality against latency: a point a model, those in grey that another one is better than in everything.

    Args:
        points: The models.
        metric: What the values are.
        how: Whether the latency was measured, and where.
    """
    with matplotlib.rc_context(_STYLE):
        figure = matplotlib.figure.Figure(figsize=(_WIDTH, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for point in points:
            colour = _BLUE if point.on_front else _GREY
            axes.plot(point.milliseconds, point.value, "o", color=colour, markersize=6)
        axes.margins(x=0.15, y=0.2)
        axes.grid(color=_PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"milliseconds a call: {how}")
        axes.set_ylabel(metric)
        _label_points(axes, [(point.milliseconds, point.value, point.label) for point in points])
        return _svg(figure, "latency-front")


def _label_points(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Writes each label where it covers least of those that stand already, and of the points."""
    figure = axes.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels must not move the axes that they were placed in
    dots = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in dots]
    inside = axes.get_window_extent()
    for (x, y, label), (left, height) in zip(points, dots, strict=True):
        best = None
        # Two points side by side: the label of the left one goes to its left, or it would seem the other's.
        crowded = any(0 < other - left < 40 and abs(above - height) < 12 for other, above in dots)
        places = sorted(_LABEL_PLACES.items(), key=lambda place: place[0][0] > 0) if crowded else _LABEL_PLACES.items()
        for (dx, dy), (across, upright) in places:
            text = axes.annotate(label, (x, y), (dx, dy), textcoords="offset points", ha=across, va=upright)
            box = text.get_window_extent()
            outside = max(0.0, inside.x0 - box.x0) + max(0.0, box.x1 - inside.x1)
            covered = sum(_area(Bbox.intersection(box, other)) for other in taken) + 100 * outside
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered, text, box)
            else:
                text.remove()
        if best is not None:
            taken.append(best[2])


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else float(box.width * box.height)


def _call_of(measured: Profile) -> str:
    """A name for what was timed; one bundle may be timed at two things."""
    return measured.target + ("-reading" if measured.reading else "")


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
            _write_beside(axes, max(value, 0.0), row, label, colour=_RED if value < 0 else "black")
        axes.set_xlim(min(0.0, *values), 1.15 * max(0.01, *values))
        axes.set_xlabel(xlabel)
        axes.invert_yaxis()
        return _svg(figure, plot)


def _write_beside(
    axes: Any, end: float, row: int, label: str, *, colour: str = "black"
) -> None:
    """Writes a label behind the end of a bar: a space in front of it would be lost in a page."""
    axes.annotate(label, (end, row), (4, 0), textcoords="offset points", va="center", color=colour)


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
    text = text.replace("#000000", "currentColor")  # lines and letters in the page's colour, light or dark
    text = text.replace(_PALE, "var(--thin)")
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1).strip()
