"""What a classifier says of a text: one score a class."""

from __future__ import annotations

import dataclasses
from typing import Any


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
        """Number of the class with the highest score, the first of equal ones."""
        return max(range(len(self.values)), key=self.values.__getitem__)

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


def class_names(labels: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Returns a name for each class; those without one are called ``LABEL_0`` and so on."""
    return (*labels[:classes], *(f"LABEL_{index}" for index in range(len(labels), classes)))
