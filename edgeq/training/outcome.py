"""What a run came to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edgeq.json_text import json_text


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """What a stage came to.

    Attributes:
        name: Its name.
        steps: Steps it took.
        metric: The figure by which models are compared; None without evaluation.
        values: All figures of the weights it ended with, by name.
    """

    name: str
    steps: int
    metric: str | None
    values: dict[str, float]

    @staticmethod
    def from_json(values: dict[str, Any]) -> StageOutcome:
        """Makes it from what ``dataclasses.asdict`` gave."""
        return StageOutcome(**values)


@dataclasses.dataclass(frozen=True)
class TrainingOutcome:
    """What a run came to.

    Attributes:
        folder: Folder of the run.
        weights: File of the weights of the result: latent weights and state of the quantizers.
        steps: Steps of all stages.
        metric: The figure by which models are compared; None without evaluation.
        values: All figures of the result by name.
        stages: The stages in order.
    """

    folder: Path
    weights: Path
    steps: int
    metric: str | None
    values: dict[str, float]
    stages: tuple[StageOutcome, ...]

    def to_json(self) -> str:
        """Returns the contents of ``result.json``."""
        values = dataclasses.asdict(self)
        del values["folder"]
        values["weights"] = str(self.weights.relative_to(self.folder))
        return json_text(values, indent=2, sort_keys=True) + "\n"
