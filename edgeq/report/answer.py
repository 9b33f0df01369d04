"""The first screen of a report: may this model be shipped? How large, how fast, how good is it, and on what?"""

from __future__ import annotations

import dataclasses

from edgeq.ledger import megabytes
from edgeq.report.text import milliseconds, speedup, workload
from edgeq.report.verdicts import accuracy_verdict
from edgeq.results import Accuracy, Level, ParityReport, Report, RunLedger, RunProfile
from edgeq.sizes import counted

_BASELINE = "onnxruntime float32"


@dataclasses.dataclass(frozen=True)
class Tile:
    """One question with its answer.

    Attributes:
        question: Such as ``How large?``.
        value: The answer in a word or a number.
        note: What the number is compared with, and what it was measured on.
    """

    question: str
    value: str
    note: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a reader wants to know first.

    Attributes:
        level: ``good``, ``warn`` or ``bad``.
        sentence: Whether the model may be shipped, and if not, why.
        tiles: The other questions.
    """

    level: Level
    sentence: str
    tiles: tuple[Tile, ...]


def answer(report: Report) -> Answer:
    """Answers the questions from the results of a run, verdicts included."""
    bad = [verdict.sentence for verdict in report.verdicts if verdict.level == "bad"]
    profile, accuracy = report.profile, report.accuracy
    size, machine = _size(report.ledger), _machine(list(report.about.targets), profile)
    tiles = (size, _speed(profile), _quality(accuracy), _proof(report.parity), machine)
    if bad:
        return Answer("bad", f"No, not as it is. {bad[0]}", tiles)
    if not accuracy.measured:
        sentence = "Only if you know its quality from elsewhere: it was not measured. Give deploy --eval-data."
        return Answer("warn", sentence, tiles)
    quality = accuracy_verdict(accuracy)
    if quality.level != "good":
        return Answer("warn", f"Only if this loss is acceptable. {quality.sentence}", tiles)
    return Answer("good", f"Yes. Every stage computes the same model. {quality.sentence}", tiles)


def _size(ledger: RunLedger) -> Tile:
    name, book = next(iter(ledger.bundles.items()), ("checkpoint", ledger.checkpoint))
    totals, whole = book.totals, ledger.float.totals.stored_bytes
    note = (
        f"weights as stored, {totals.ratio:.2f}x smaller than float32 ({megabytes(whole)}); "
        f"whole folder of {name} {megabytes(totals.folder_bytes)}"
    )
    return Tile("How large?", megabytes(totals.stored_bytes), note)


def _speed(profile: RunProfile) -> Tile:
    if not profile.measured:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in profile.not_measured.items())
        return Tile("How fast?", "not measured", reasons or "the run has no bundle for this machine")
    name, measured = next(iter(profile.measured.items()))
    found = measured.speedups.get(_BASELINE)
    against = f"{speedup(found)} against ONNX Runtime float32, " if found else ""
    if found and found.busy:
        against = "no ratio, because the machine was busy; "
    note = f"{against}median at {workload(measured)}, {counted(measured.threads, 'thread')}, bundle {name}"
    return Tile("How fast?", milliseconds(measured.timings["edgeq"].median), note)


def _quality(accuracy: Accuracy) -> Tile:
    if not accuracy.measured:
        return Tile("How good?", "not measured", accuracy.reason)
    stage, score = list(accuracy.stages.items())[-1]
    examples = f"{accuracy.examples} {accuracy.unit}"
    note = f"{accuracy.metric} of {stage}; the float model has {accuracy.reference:.4f} on the same {examples}"
    return Tile("How good?", f"{score.value:.4f}", note)


def _proof(parity: ParityReport) -> Tile:
    broken, count = len(parity.broken), len(parity.checks)
    value = f"{broken} of {count} checks broken" if broken else "yes, proven"
    note = "a parity rule is broken: see Parity" if broken else f"all {count} parity checks hold"
    return Tile("The same model?", value, note)


def _machine(names: list[str], profile: RunProfile) -> Tile:
    measured = next(iter(profile.measured.values()), None)
    targets = ", ".join(names)
    if measured is None:
        return Tile("On what?", targets, "bundles; nothing was timed on this machine")
    machine = measured.machine
    cores = f"{machine['cores']} cores" if machine.get("cores") else ""
    facts = [machine.get("processor", ""), cores, machine.get("date", "")]
    return Tile("On what?", targets, "measured on " + ", ".join(fact for fact in facts if fact))
