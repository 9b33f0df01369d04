"""Puts a run's results together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import edgeq
from edgeq.errors import FormatError, UsageError
from edgeq.files import check_new_file, write_json, write_text
from edgeq.formats.json_file import read_json_object
from edgeq.json_text import json_text
from edgeq.report.page import GENERATOR, render
from edgeq.report.training import read_training
from edgeq.report.verdicts import verdicts
from edgeq.results import Accuracy, ParityReport, RunLedger, RunProfile

_MARKER = b'"format": "edgeq-report"'
_PARTS = ("accuracy", "parity", "ledger", "profile")


def write_report(run: str | Path, *, force: bool = False) -> dict[str, Any]:
    """Writes ``report.json`` and ``report.html`` from the results in a run's folder.

    Args:
        run: Folder that :func:`edgeq.deploy.deploy` wrote.
        force: Replace a report.json or report.html even if it is something else.

    Returns:
        The contents of ``report.json``.

    Raises:
        UsageError: If the folder is not a run, a result is not there yet, or something else is called like a report.
        FormatError: If a result is damaged.
    """
    folder = Path(run)
    state = folder / "deploy.json"
    if not state.is_file():
        raise UsageError(f"{folder} has no deploy.json; give a folder that 'edgeq deploy' wrote")
    missing = [f"{part}.json" for part in _PARTS if not (folder / f"{part}.json").is_file()]
    if missing:
        raise UsageError(f"{folder} has no {' and no '.join(missing)} yet; run 'edgeq deploy' again to finish it")
    check_new_file(folder / "report.json", verb="report", marker=_MARKER, force=force)
    check_new_file(folder / "report.html", verb="report", marker=GENERATOR, force=force)
    report: dict[str, Any] = {"format": "edgeq-report", "format_version": 1, "edgeq": edgeq.__version__}
    try:
        about = read_json_object(state)["about"]
        report |= {key: about[key] for key in ("name", "source", "recipe", "targets")}
        report["taken"] = [{key: str(row[key]) for key in ("what", "value", "file")} for row in about.get("taken", [])]
        report |= {part: read_json_object(folder / f"{part}.json") for part in _PARTS}
        parity = ParityReport.from_json(report["parity"], folder / "parity.json")
        accuracy = Accuracy.from_json(report["accuracy"], folder / "accuracy.json")
        for part, kind in (("ledger", RunLedger), ("profile", RunProfile)):
            kind.from_json(report[part], folder / f"{part}.json")
        report["parity"] = json.loads(json_text(parity.with_data(accuracy).to_json()))
        if "gates" in about:
            report["gates"] = about["gates"]
        if "training" in about:
            report["training"] = read_training(folder / str(about["training"]))
        report["verdicts"] = [dataclasses.asdict(verdict) for verdict in verdicts(report)]
        page = render(report)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise FormatError(
            f"a result in {folder} is damaged ({error!r}); delete deploy.json and deploy again"
        ) from error
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", page)
    return report
