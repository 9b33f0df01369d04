"""Results as lines and tables of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgeq.ledger import megabytes
from edgeq.results import Accuracy, BackendDiff, ParityReport, Profile, Report, SpeedupClaim, Step, Taken, Timing
from edgeq.sizes import counted

_OPERATORS_SHOWN = 12


def summary_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The one table of a run: a row for each way to run the model.

    Returns:
        Column names, and rows of cells.
    """
    accuracy, ledger, profile = report.accuracy, report.ledger, report.profile
    metric = accuracy.metric if accuracy.measured else "accuracy"
    columns = ["model", metric, "weights", "vs float32", "median", "p95", "speed-up"]
    float_bytes = ledger.float.totals.stored_bytes
    timings: dict[str, Timing] = next((measured.timings for measured in profile.measured.values()), {})
    float_metric = _metric(accuracy, "torch float32")
    float32 = ["float32, ONNX Runtime", float_metric, megabytes(float_bytes), "1.00x"]
    int8 = ["int8 dynamic, ONNX Runtime", "", "", ""]
    rows = [
        [*float32, *_latency(timings.get("onnxruntime float32")), ""],
        [*int8, *_latency(timings.get("onnxruntime int8 dynamic")), ""],
    ]
    for name, book in ledger.bundles.items():
        totals, measured = book.totals, profile.measured.get(name)
        cells = [
            f"edgeq {report.about.recipe.name}, {name}",
            _metric(accuracy, f"bundle {name}", "torch compressed"),
        ]
        cells += [megabytes(totals.stored_bytes), f"{totals.ratio:.2f}x"]
        cells += _latency(measured.timings["edgeq"] if measured else None)
        cells.append(speedup(measured.speedups.get("onnxruntime float32")) if measured else "(emulated)")
        rows.append(cells)
    return columns, [row for row in rows if any(row[1:])]


def _metric(accuracy: Accuracy, *stages: str) -> str:
    """The metric of the first of these stages that was evaluated."""
    found = next((accuracy.stages[stage] for stage in stages if stage in accuracy.stages), None)
    return "" if found is None else f"{found.value:.4f}"


def _latency(timing: Timing | None) -> list[str]:
    return ["", ""] if timing is None else [milliseconds(timing.median), milliseconds(timing.p95)]


def speedup(found: SpeedupClaim | None) -> str:
    """Formats a speed-up: no number if it may be chance or the machine was busy, nothing if none was measured."""
    if found is None:
        return ""
    if found.busy:
        return "(busy machine)"
    return "within noise" if found.ratio is None else f"{found.ratio:.2f}x"


def milliseconds(seconds: float) -> str:
    """Formats a latency."""
    return f"{1e3 * seconds:.2f} ms"


def duration(seconds: float) -> str:
    """Formats a long time: minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class TimedCall(Protocol):
    """What a profile or an estimate says of its call; see :class:`edgeq.results.Profile`."""

    @property
    def sequence(self) -> int: ...  # noqa: D102
    @property
    def source(self) -> int: ...  # noqa: D102
    @property
    def step(self) -> bool: ...  # noqa: D102
    @property
    def reading(self) -> bool: ...  # noqa: D102


def workload(call: TimedCall) -> str:
    """What one call of a profile worked on: texts, or for a decoder the step after some tokens."""
    tokens = counted(call.sequence, "token")
    if call.reading:
        return f"encoding {tokens}"
    source = f", with an encoder input of {call.source}" if call.source else ""
    return f"one token after {tokens}{source}" if call.step else tokens


def profile_lines(measured: Profile) -> list[str]:
    """A profile as lines: latencies, claims, operators, and what they were measured on."""
    lines = [
        f"{measured.bundle} ({measured.target}): {measured.batch} x {workload(measured)}, "
        f"{counted(measured.threads, 'thread')}, {counted(measured.rounds, 'round')}"
    ]
    for name, timing in measured.timings.items():
        median, p95, spread = (milliseconds(seconds) for seconds in (timing.median, timing.p95, timing.spread))
        numbers = f"median {median:>10}   p95 {p95:>10}   spread {spread:>9}   ({counted(timing.calls, 'call')})"
        lines.append(f"  {name:26} {numbers}")
    lines += [f"  against {name}: {claim.sentence}" for name, claim in measured.speedups.items()]
    lines += [f"  {name} not measured: {reason}" for name, reason in measured.missing.items()]
    lines.append("  kernels, as shares of their own time:")
    for operator in measured.operators[:_OPERATORS_SHOWN]:
        spent = milliseconds(operator.seconds)
        lines.append(f"    {operator.share:6.1%}  {spent:>10}  {operator.calls:3} calls  {operator.name}")
    rest = measured.operators[_OPERATORS_SHOWN:]
    if rest:
        lines.append(f"    {sum(operator.share for operator in rest):6.1%}  {len(rest)} others")
    if measured.others is not None:
        lines.append(f"  other programs took {measured.others:.0%} of the processors meanwhile")
    lines.append("  " + ", ".join(f"{key} {value}" for key, value in measured.machine.items()))
    return lines


def taken_lines(taken: Sequence[Taken]) -> list[str]:
    """What was taken from the model's folder, and the file that says it, as lines."""
    return [f"{row.what + ':':14} {row.value} ({row.file})" for row in taken]


def parity_lines(parity: ParityReport) -> list[str]:
    """Every check of a parity run as a line, broken ones marked, then what was not checked."""
    lines = []
    for check in parity.checks:
        mark = "ok    " if check.passed else "BROKEN"
        lines.append(f"{mark}  {check.stage:24} {check.rule:10} {check.detail}")
    lines += [f"not checked: {reason}" for reason in parity.conditions.not_checked]
    count, total = len(parity.broken), len(parity.checks)
    lines.append(f"all {total} parity checks hold" if not count else f"{count} of {total} parity checks are BROKEN")
    return lines


def diff_lines(found: BackendDiff, *, every_layer: bool) -> list[str]:
    """What one backend made of the layers, as lines: the first that leaves its envelope, and all if asked for."""
    lines, first = [], found.first
    if every_layer:
        for step in found.steps:
            mark = "ok     " if step.within else "OUTSIDE"
            accumulated = f"accumulated {step.moved:.2e} (limit {step.limit:.2e})"
            lines.append(f"{mark}  alone {_times(step):>8} of bound   {accumulated}  {_step(step)}")
    layers = sum(step.part == "layer" for step in found.steps)
    if first is None:
        return [*lines, f"{found.backend}: all {layers} layers are within their envelopes"]
    alone = f"alone its error is {_times(first)} times its bound"
    if first.is_right_alone:
        alone = "alone it is within its bound"
    accumulated = f"accumulated it is off by {first.moved:.2e} of its size (limit {first.limit:.2e})"
    return [*lines, f"{found.backend}: the first outside its envelope is {_step(first)}: {alone}, {accumulated}"]


def _times(step: Step) -> str:
    return "infinite" if step.error is None else f"{step.error:.3g}"


def _step(step: Step) -> str:
    operators = ", ".join(step.operators)
    return f"{step.name} ({operators})" if step.part == "layer" else f"what {step.name} reads ({operators})"
