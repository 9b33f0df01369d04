"""What the results mean, in plain sentences: good news and bad news are told alike."""

from __future__ import annotations

from edgeq.ledger import megabytes
from edgeq.report.gates import gate_results
from edgeq.report.text import workload
from edgeq.results import Accuracy, Level, ParityReport, Report, RunLedger, RunProfile, Verdict
from edgeq.sizes import counted

# Shares of the float model's metric that a compressed model must keep to be called by these names.
# They decide about words only; the numbers and their interval stand beside them.
_SMALL_LOSS = 0.99
_NOTICEABLE_LOSS = 0.95

_MEANING = "meaning"
"""Name of the rule, and what its entries among those that were not checked begin with."""
LESS_IS_BETTER = "perplexity"
"""The metric whose loss is an increase."""
_BUSY = 0.1
"""Share of processor time taken by other programs above which a reader of latencies is warned."""


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """Judges the results of a run; the worst can be found by their level."""
    return (
        accuracy_verdict(report.accuracy),
        parity_verdict(report.parity),
        *_meaning_verdicts(report.parity),
        *_gate_verdicts(report),
        *_size_verdicts(report.ledger),
        *_latency_verdicts(report.profile),
    )


def accuracy_verdict(accuracy: Accuracy) -> Verdict:
    """Judges the worst stage against the float model."""
    if not accuracy.measured:
        return Verdict("accuracy", "warn", f"Accuracy was not measured: {accuracy.reason}.")
    stage, loss = max(accuracy.losses.items(), key=lambda item: item[1].value)
    metric, examples = accuracy.metric, f"{accuracy.examples} {accuracy.unit}"
    value, kept = accuracy.stages[stage].value, loss.retained
    change = "increase" if metric == LESS_IS_BETTER else "loss"
    numbers = (
        f"{metric} {value:.3f} against {accuracy.reference:.3f} of the float model on {examples} "
        f"({change} {loss.value:+.4f}, 95% interval {loss.low:+.4f} to {loss.high:+.4f})"
    )
    if kept is None:
        return Verdict("accuracy", "warn", f"The float model itself scores 0 or less on these data: {numbers}.")
    if kept >= _SMALL_LOSS:
        size = "No loss beyond sampling noise" if loss.low <= 0.0 else "Small loss"
        return Verdict("accuracy", "good", f"{size}: {numbers}.")
    if kept >= _NOTICEABLE_LOSS:
        return Verdict("accuracy", "warn", f"Noticeable loss: {numbers}.")
    if loss.low <= 0.0:
        return Verdict("accuracy", "warn", f"Too few examples to tell a large loss from chance: {numbers}.")
    share = f"keeps {kept:.0%} of the float model's {metric}"
    if metric == LESS_IS_BETTER and kept > 0:
        share = f"has {1 / kept:.2f} times the float model's {metric}"
    advice = "do not ship it as it is; use more bits, or a recipe that trains"
    return Verdict("accuracy", "bad", f"LARGE LOSS: the compressed model {share}: {numbers}; {advice}.")


def parity_verdict(parity: ParityReport) -> Verdict:
    """Says whether every rule held, and if not, where the first one broke."""
    first = parity.first_breach
    if first is None:
        return Verdict("parity", "good", "Every stage computes the same model: all parity rules hold.")
    return Verdict("parity", "bad", f"PARITY IS BROKEN: {first.stage}, rule {first.rule}: {first.detail}.")


def _meaning_verdicts(parity: ParityReport) -> list[Verdict]:
    """Says what texts were compared with; that nothing was compared is news."""
    library = parity.conditions.library
    if library and all(check.passed for check in parity.checks if check.rule == _MEANING):
        return [Verdict(_MEANING, "good", f"Results for texts agree with {library} on the float model's folder.")]
    begins = f"{_MEANING}: "
    return [
        Verdict(_MEANING, "warn", f"Results for texts were not compared with a library: {reason.removeprefix(begins)}.")
        for reason in parity.conditions.not_checked
        if reason.startswith(begins)
    ]


def _gate_verdicts(report: Report) -> list[Verdict]:
    """Says of every limit that the user gave whether it is kept."""
    words: dict[bool, tuple[Level, str]] = {True: ("good", "Limit kept"), False: ("bad", "LIMIT NOT KEPT")}
    return [
        Verdict("gate", words[one.passed][0], f"{words[one.passed][1]}: {one.sentence}")
        for one in gate_results(report)
    ]


def _size_verdicts(ledger: RunLedger) -> list[Verdict]:
    result = []
    for name, book in ledger.bundles.items():
        totals = book.totals
        unexplained = [row.tensor for row in book.rows if row.reason == "no reason recorded"]
        sentence = (
            f"Bundle {name}: {megabytes(totals.stored_bytes)} of weights, {totals.ratio:.2f}x smaller "
            f"than float32 as stored ({totals.paper_ratio:.2f}x as papers count); whole folder "
            f"{megabytes(totals.folder_bytes)}"
        )
        if unexplained:
            listed = ", ".join(unexplained[:3]) + (" and others" if len(unexplained) > 3 else "")
            result.append(Verdict("size", "warn", f"{sentence}; float for no recorded reason: {listed}."))
        else:
            result.append(Verdict("size", "good", f"{sentence}."))
    return result


def _latency_verdicts(profile: RunProfile) -> list[Verdict]:
    result = []
    for name, measured in profile.measured.items():
        median = measured.timings["edgeq"].median
        setting = f"{workload(measured)}, {counted(measured.threads, 'thread')}"
        where = f"Bundle {name}: {1e3 * median:.2f} ms at {setting}"
        others = measured.others
        if others is not None and others > _BUSY:
            sentence = f"Other programs took {others:.0%} of the processors while {name} was measured: measure again."
            result.append(Verdict("latency", "warn", sentence))
        for baseline, speedup in measured.speedups.items():
            level: Level = "good" if (speedup.ratio or 0.0) > 1.0 else "warn"
            result.append(Verdict("latency", level, f"{where}; against {baseline}: {speedup.sentence}."))
        for baseline, reason in measured.missing.items():
            result.append(Verdict("latency", "warn", f"{where}; {baseline} was not measured: {reason}."))
    for name, reason in profile.not_measured.items():
        result.append(Verdict("latency", "warn", f"Bundle {name}: latency was not measured: {reason}."))
    return result
