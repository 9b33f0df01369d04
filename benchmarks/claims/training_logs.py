"""The training log of a run, thinned, so that it can be kept beside its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.files import write_text

LOGS = "logs"
"""Folder of the logs in that of the tables."""
MOST_LINES = 40
"""Of each kind, losses and evaluations; the first and the last are among them."""


def read_log(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's training log; empty if it has none, as a training that never began.

    Args:
        run: Folder of the run.
    """
    file = run / "training" / "log.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def training_seconds(lines: Sequence[dict[str, Any]]) -> float | None:
    """Returns the seconds that all steps took, in whatever number of starts; each stage counts its own."""
    last: dict[str, float] = {line["stage"]: line["seconds"] for line in lines if "seconds" in line}
    return round(sum(last.values()), 1) if last else None


def thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns at most ``MOST_LINES`` lines of losses and as many of evaluations, in their order."""
    kept: list[int] = []
    for evaluations in (False, True):
        places = [number for number, line in enumerate(lines) if ("evaluation" in line) == evaluations]
        count = min(MOST_LINES, len(places))
        kept += {places[round(k * (len(places) - 1) / max(1, count - 1))] for k in range(count)}
    return [lines[number] for number in sorted(kept)]


def write_log(logs: Path, name: str, lines: Sequence[dict[str, Any]]) -> None:
    """Writes the thinned log of a run as ``NAME.jsonl``.

    Args:
        logs: Folder of all logs.
        name: Name of the run.
        lines: Its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    write_text(logs / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in thinned(lines)))
