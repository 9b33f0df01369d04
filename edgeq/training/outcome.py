"""What a training came to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeq.results import TrainingResult

RESULT_FILE = "result.json"


@dataclasses.dataclass(frozen=True)
class TrainingOutcome:
    """A finished training.

    Attributes:
        folder: Folder of the training.
        result: The contents of its ``result.json``.
    """

    folder: Path
    result: TrainingResult

    @property
    def weights(self) -> Path:
        """File of the weights of the result: latent weights and state of the quantizers."""
        return self.folder / self.result.weights
