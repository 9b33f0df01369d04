"""What a training left in its folder: how the loss fell, what evaluations found, what each stage ended with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.formats.json_file import parse_json, read_json_object
from edgeq.reading import read_text

_MOST_POINTS = 300
"""Points of the loss that are kept: more of them are closer together than a pixel."""
_SETTINGS = ("epochs", "steps", "batch_size", "max_length", "learning_rate", "schedule", "seed", "select")


def read_training(folder: Path) -> dict[str, Any]:
    """Reads a finished training.

    Args:
        folder: Folder of the training, with ``run.json``, ``log.jsonl`` and ``result.json``.

    Returns:
        JSON values: ``folder``, ``task``, ``settings``, ``steps``, ``seconds``, ``metric`` and ``values`` of the
        weights it ended with, ``stages`` (each with name, steps, seconds, metric, values, and the step of its
        weights), ``loss`` (pairs of step and mean loss) and ``evaluations`` (each with step, stage and values).

    Raises:
        FormatError: If a file is missing or damaged.
    """
    for name in ("run.json", "log.jsonl", "result.json"):
        if not (folder / name).is_file():
            raise FormatError(f"{folder / name} is missing, though the run was trained; deploy again")
    run, result = read_json_object(folder / "run.json"), read_json_object(folder / "result.json")
    lines = _lines(folder / "log.jsonl")
    try:
        steps = [line for line in lines if "loss" in line]
        seconds = {str(line["stage"]): float(line["seconds"]) for line in steps}
        stages = [
            {**stage, "seconds": seconds.get(stage["name"], 0.0), "weights_of": _weights_of(folder, stage["name"])}
            for stage in result["stages"]
        ]
        settings = {name: run["settings"][name] for name in _SETTINGS if run["settings"].get(name) is not None}
        return {
            "folder": folder.name,
            "task": str(run["task"]),
            "settings": settings,
            "steps": result["steps"],
            "seconds": sum(seconds.values()),
            "metric": result["metric"],
            "values": result["values"],
            "stages": stages,
            "loss": _thinned([(line["step"], line["loss"]) for line in steps if line["loss"] is not None]),
            "evaluations": [
                {"step": line["step"], "stage": line["stage"], "values": line["evaluation"]}
                for line in lines
                if "evaluation" in line
            ],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"the training in {folder} is not as edgeq writes it ({error!r}); train again") from error


def _lines(file: Path) -> list[dict[str, Any]]:
    numbered = enumerate(read_text(file).split("\n"), start=1)
    lines = [parse_json(line, where=f"{file}, line {number},") for number, line in numbered if line]
    if not all(isinstance(line, dict) for line in lines):
        raise FormatError(f"{file} should hold JSON objects, one a line; the file is damaged")
    return lines


def _weights_of(folder: Path, stage: str) -> int | None:
    """The step whose weights a stage ended with."""
    file = folder / f"stage-{stage}" / "record.json"
    return int(read_json_object(file)["step"]) if file.is_file() else None


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means of neighbouring points, each at the last one's step."""
    size = -(-len(points) // _MOST_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], float(f"{sum(loss for _, loss in group) / len(group):.6g}")) for group in groups]
