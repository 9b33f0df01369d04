"""What a classifier's logits mean: one score a class, as transformers' pipeline makes it of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """The score of each class.

    Attributes:
        names: Names of the classes, in the order of the logits; two may have the same one.
        values: Their scores: probabilities, or the model's own numbers.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def best(self) -> int:
        """Number of the class with the highest score."""
        return int(np.argmax(self.values))

    @property
    def label(self) -> str:
        """Name of the class with the highest score."""
        return self.names[self.best]

    @property
    def score(self) -> float:
        """The highest score."""
        return self.values[self.best]

    def to_json(self) -> dict[str, Any]:
        """Returns ``label``, ``score`` and ``scores``: by name, or as a list where two classes have one name."""
        pairs = list(zip(self.names, self.values, strict=True))
        scores: Any = dict(pairs)
        if len(scores) < len(pairs):
            scores = [{"label": name, "score": value} for name, value in pairs]
        return {"label": self.label, "score": self.score, "scores": scores}


def scores_of(logits: np.ndarray, labels: Sequence[str], function: str) -> Scores:
    """Makes scores of logits.

    Args:
        logits: float32 ``[classes]``.
        labels: Names of the classes; those without one are called ``LABEL_0`` and so on.
        function: ``softmax``, ``sigmoid`` or ``none``.
    """
    values = logits.astype(np.float64)
    if function == "softmax":
        values = np.exp(values - values.max())
        values /= values.sum()
    elif function == "sigmoid":
        # Both forms are the same number; each is used where it does not overflow.
        small = np.exp(-np.abs(values))
        values = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    names = [labels[index] if index < len(labels) else f"LABEL_{index}" for index in range(len(values))]
    return Scores(tuple(names), tuple(float(value) for value in values))
