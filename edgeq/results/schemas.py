"""The published schemas of all results."""

from __future__ import annotations

from typing import Any

from edgeq.results.accuracy import Accuracy, Predictions
from edgeq.results.base import Result, adapter
from edgeq.results.comparison import PairedTests, RunComparison
from edgeq.results.diff import DiffReport
from edgeq.results.ledger import RunLedger
from edgeq.results.parity import ParityReport
from edgeq.results.profile import RunProfile
from edgeq.results.run import Report, RunRecord
from edgeq.results.training import TrainingResult, TrainingRun

FILES: dict[str, type[Result]] = {
    "deploy.json": RunRecord,
    "accuracy.json": Accuracy,
    "predictions.json": Predictions,
    "parity.json": ParityReport,
    "ledger.json": RunLedger,
    "profile.json": RunProfile,
    "report.json": Report,
}
"""Files of a run by name."""
OTHERS: dict[str, type[Result]] = {
    "run.json": TrainingRun,
    "result.json": TrainingResult,
    "comparison.json": RunComparison,
    "compare.json": PairedTests,
    "diff.json": DiffReport,
}
"""Files of a training, and what ``edgeq report RUN RUN``, ``edgeq compare --json`` and ``edgeq diff --json`` give."""


def schema_of(kind: type[Result]) -> dict[str, Any]:
    """Returns the JSON Schema of a result."""
    schema = adapter(kind).json_schema()
    schema["required"] = ["format", "version", *schema.get("required", [])]
    schema["properties"] |= {name: {"type": "boolean"} for name in getattr(kind, "derived", ())}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
