"""Puts a run's results together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import edgeq
from edgeq.errors import UsageError
from edgeq.files import check_new_file, write_text
from edgeq.report.page import GENERATOR, render
from edgeq.report.training import read_training
from edgeq.report.verdicts import verdicts
from edgeq.results import Accuracy, ParityReport, Report, RunLedger, RunProfile, RunRecord

_MARKER = b'"format": "edgeq-report"'
_PARTS = ("accuracy", "parity", "ledger", "profile")


def write_report(run: str | Path, *, force: bool = False) -> Report:
    """Writes ``report.json`` and ``report.html`` from the results in a run's folder.

    Args:
        run: Folder that :func:`edgeq.deploy.deploy` wrote.
        force: Replace a report.json or report.html even if it is something else.

    Returns:
        The contents of ``report.json``.

    Raises:
        UsageError: If the folder is not a run, a result is not there yet, or something else is called like a report.
        FormatError: If a result is damaged, or of another version.
    """
    folder = Path(run)
    check_new_file(folder / "report.json", verb="report", marker=_MARKER, force=force)
    check_new_file(folder / "report.html", verb="report", marker=GENERATOR, force=force)
    report = read_results(folder)
    page = render(report)
    report.write(folder / "report.json")
    write_text(folder / "report.html", page)
    return report


def read_results(folder: Path) -> Report:
    """Reads the results in a run's folder, and judges them; same errors as :func:`write_report`."""
    state = folder / "deploy.json"
    if not state.is_file():
        raise UsageError(f"{folder} has no deploy.json; give a folder that 'edgeq deploy' wrote")
    missing = [f"{part}.json" for part in _PARTS if not (folder / f"{part}.json").is_file()]
    if missing:
        raise UsageError(f"{folder} has no {' and no '.join(missing)} yet; run 'edgeq deploy' again to finish it")
    about = RunRecord.read(state).about
    accuracy = Accuracy.read(folder / "accuracy.json")
    report = Report(
        edgeq=edgeq.__version__,
        about=about,
        accuracy=accuracy,
        parity=ParityReport.read(folder / "parity.json").with_data(accuracy.checks),
        ledger=RunLedger.read(folder / "ledger.json"),
        profile=RunProfile.read(folder / "profile.json"),
        training=None if about.training is None else read_training(folder / about.training),
    )
    return dataclasses.replace(report, verdicts=verdicts(report))
