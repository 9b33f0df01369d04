"""Gates of a run: how a user writes limits, and whether the results keep them."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import get_args

from edgeq.errors import UsageError
from edgeq.ledger import megabytes
from edgeq.results import Accuracy, Gates, Loss, LossEnd, LossLimit, Report, RunLedger
from edgeq.sizes import parse_bytes

_LOSS = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclasses.dataclass(frozen=True)
class GateResult:
    """Whether one limit was kept.

    Attributes:
        passed: Whether it was.
        sentence: Limit and finding.
    """

    passed: bool
    sentence: str


def parse_gates(
    *, max_loss: str | None, loss_at: str = "interval", max_bytes: str | None, max_ms: float | None
) -> Gates:
    """Reads the limits of a command line.

    Args:
        max_loss: Such as ``1%`` (of the float model's value) or ``0.5`` (points).
        loss_at: Which loss must keep it: ``interval`` or ``middle``.
        max_bytes: Such as ``8MB``, ``7.5MiB`` or a number of bytes.
        max_ms: Milliseconds.

    Raises:
        UsageError: If a limit is no number, or cannot be kept by any model.
    """
    ends = {end: end for end in get_args(LossEnd)}
    if loss_at not in ends:
        raise UsageError(f"--loss-at should be {' or '.join(ends)}, found {loss_at!r}")
    loss = None
    if max_loss is not None:
        found = _LOSS.fullmatch(max_loss.strip())
        if found is None:
            raise UsageError(f"--max-loss should be a percentage such as 1% or points such as 0.5, found {max_loss!r}")
        loss = LossLimit(float(found[1]), found[2] == "%", ends[loss_at])
    if max_ms is not None and not (math.isfinite(max_ms) and max_ms > 0):
        raise UsageError(f"--max-ms should be a number of milliseconds above 0, found {max_ms:g}")
    return Gates(loss, None if max_bytes is None else parse_bytes(max_bytes, option="--max-bytes"), max_ms)


def gate_results(report: Report) -> list[GateResult]:
    """Compares the results of a run with the limits that it was given; empty without any."""
    gates = report.about.gates
    if gates is None:
        return []
    results = []
    if gates.max_loss is not None:
        results.append(_loss(report.accuracy, gates.max_loss))
    if gates.max_bytes is not None:
        results.append(_bytes(report.ledger, gates.max_bytes))
    if gates.max_ms is not None:
        results.append(_latency(report, gates.max_ms))
    return results


def _loss(accuracy: Accuracy, limit: LossLimit) -> GateResult:
    if not accuracy.measured:
        sentence = f"A loss of at most {limit} was asked for, but none was measured: {accuracy.reason}."
        return GateResult(False, sentence)
    allowed = limit.largest(accuracy.metric, accuracy.reference)
    worst_end = limit.end == "interval"
    counted = {name: loss.high if worst_end else loss.value for name, loss in accuracy.losses.items()}
    stage = max(counted, key=lambda name: _worst(counted[name]))
    loss = accuracy.losses[stage]
    # Written so that a value that is no number is not within a limit.
    passed = bool(counted[stage] <= allowed)
    where = "the end of its 95% interval" if worst_end else "the measured loss"
    found = (
        f"{accuracy.metric} may lose at most {allowed:.4f} ({limit}); {stage} loses {loss.value:+.4f} "
        f"(95% interval {loss.low:+.4f} to {loss.high:+.4f}), and {where} counts"
    )
    if not passed and worst_end and loss.value < allowed:
        found += f"; {_examples_needed(accuracy, loss, allowed)}"
    return GateResult(passed, f"{found}.")


def _worst(value: float) -> float:
    return value if value == value else math.inf


def _examples_needed(accuracy: Accuracy, loss: Loss, allowed: float) -> str:
    """Says how many examples would tell: the width of an interval falls with the root of their number."""
    count = accuracy.examples
    needed = max(count + 1, round(count * ((loss.high - loss.value) / (allowed - loss.value)) ** 2))
    return f"{count} {accuracy.unit} are too few to tell, about {needed} would do if the loss stays what it is"


def _bytes(ledger: RunLedger, limit: int) -> GateResult:
    name, book = max(ledger.bundles.items(), key=lambda item: item[1].totals.stored_bytes)
    found = book.totals.stored_bytes
    sentence = f"Weights may take {limit:,} bytes ({megabytes(limit)}); those of bundle {name} take {found:,}."
    return GateResult(found <= limit, sentence)


def _latency(report: Report, limit: float) -> GateResult:
    measured = {name: one for name, one in report.profile.measured.items() if name in report.about.targets}
    if not measured:
        return GateResult(False, f"A latency of at most {limit:g} ms was asked for, but no bundle could be timed here.")
    medians = {name: 1e3 * one.timings["edgeq"].median for name, one in measured.items()}
    name, found = max(medians.items(), key=lambda item: item[1])
    return GateResult(found <= limit, f"The median may be {limit:g} ms; that of bundle {name} is {found:.2f} ms.")
