"""What all parity runs have in common: a folder, stages one after the other, checks that add up."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import Any

import onnx

from edgeq.checkpoint import Checkpoint
from edgeq.parity.report import Check, ParityReport
from edgeq.parity.run_folder import bundles_of
from edgeq.parity.stages import load_model
from edgeq.progress import Progress
from edgeq.targets.target import Target

_STAGES_BESIDE_BUNDLES = 5


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """What a parity run is about.

    Attributes:
        path: The folder.
        checkpoint: Its compressed checkpoint, the reference.
        targets: Targets made from files, by name.
        texts: Texts to run the model on.
    """

    path: Path
    checkpoint: Checkpoint
    targets: dict[str, Target]
    texts: list[str]


class ParityRun(abc.ABC):
    """All stages of one run; ``checks`` grows from stage to stage.

    Args:
        folder: The run.
        progress: Told which stage runs.
    """

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        self.folder = folder
        self.bundles = bundles_of(folder.path)
        self.checks: list[Check] = []
        self.not_checked: list[str] = []
        self._progress = progress
        self._steps = _STAGES_BESIDE_BUNDLES + len(self.bundles)
        self._done = 0

    def report(self) -> ParityReport:
        """Runs all stages."""
        self.say("PyTorch")
        conditions = self.run_stages()
        self._progress("parity", self._steps, self._steps)
        return ParityReport(tuple(self.checks), {**conditions, "not_checked": self.not_checked})

    @abc.abstractmethod
    def run_stages(self) -> dict[str, Any]:
        """Runs all stages, appends to ``checks``, and returns what they were run on."""

    def say(self, stage: str) -> None:
        """Tells that a stage begins."""
        self._progress(f"parity: {stage}", self._done, self._steps)
        self._done += 1

    def load_exported(self) -> onnx.ModelProto:
        """Loads the exported model with its weights."""
        return load_model(self.folder.path / "onnx" / "model.onnx")
