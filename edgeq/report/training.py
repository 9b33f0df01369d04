"""What a training left in its folder: how the loss fell, what evaluations found, what each stage ended with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeq.errors import FormatError
from edgeq.formats.json_file import parse_json, read_json_object
from edgeq.reading import read_text
from edgeq.results import Evaluation, LogLine, TrainedStage, Training, TrainingResult, TrainingRun

_MOST_POINTS = 300
"""Points of the loss that are kept: more of them are closer together than a pixel."""
_SETTINGS = ("epochs", "steps", "batch_size", "max_length", "learning_rate", "schedule", "seed", "select")


def read_training(folder: Path) -> Training:
    """Reads a finished training.

    Args:
        folder: Folder of the training, with ``run.json``, ``log.jsonl`` and ``result.json``.

    Raises:
        FormatError: If a file is missing or damaged, or of another version.
    """
    for name in ("run.json", "log.jsonl", "result.json"):
        if not (folder / name).is_file():
            raise FormatError(f"{folder / name} is missing, though the run was trained; deploy again")
    run, result = TrainingRun.read(folder / "run.json"), TrainingResult.read(folder / "result.json")
    lines = read_log(folder / "log.jsonl")
    steps = [line for line in lines if line.evaluation is None]
    seconds = {line.stage: line.seconds or 0.0 for line in steps}
    losses = [(line.step, line.losses.get("loss")) for line in steps]
    return Training(
        folder=folder.name,
        task=run.task,
        settings={name: run.settings[name] for name in _SETTINGS if run.settings.get(name) is not None},
        steps=result.steps,
        seconds=sum(seconds.values()),
        metric=result.metric,
        values=result.values,
        stages=tuple(
            TrainedStage(
                *(stage.name, stage.steps, stage.metric, stage.values),
                seconds=seconds.get(stage.name, 0.0),
                weights_of=_weights_of(folder, stage.name),
            )
            for stage in result.stages
        ),
        loss=_thinned([(step, loss) for step, loss in losses if loss is not None]),
        evaluations=tuple(
            Evaluation(line.step, line.stage, line.evaluation) for line in lines if line.evaluation is not None
        ),
    )


def read_log(file: Path) -> list[LogLine]:
    """Reads the log of a training.

    Raises:
        FormatError: If a line is damaged.
    """
    found = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line:
            table = parse_json(line, where=f"{file}, line {number},")
            if not isinstance(table, dict):
                raise FormatError(f"{file} should hold JSON objects, one per line; the file is damaged")
            found.append(LogLine.from_json(table, where=f"{file}, line {number},"))
    return found


def _weights_of(folder: Path, stage: str) -> int | None:
    """The step whose weights a stage ended with."""
    file = folder / f"stage-{stage}" / "record.json"
    return int(read_json_object(file)["step"]) if file.is_file() else None


def _thinned(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Means of neighbouring points, each at the last one's step."""
    size = -(-len(points) // _MOST_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((group[-1][0], float(f"{sum(loss for _, loss in group) / len(group):.6g}")) for group in groups)
