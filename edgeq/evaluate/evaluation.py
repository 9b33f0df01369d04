"""A measured result, and what all data that a model is measured on have in common."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeq.evaluate.metrics import METRICS
from edgeq.formats.sentence_model import SentenceModel

if TYPE_CHECKING:
    from edgeq.evaluate.batches import Batches

Unit = Literal["examples", "tokens"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A measured result.

    Attributes:
        metric: A name of :data:`edgeq.evaluate.metrics.METRICS`.
        rows: float64 ``[examples, columns]``: what the metric is computed of.
        decisions: int64: what the model decided, one or several an example; None where it gives numbers alone.
        others: Further figures by name.
    """

    metric: str
    rows: np.ndarray
    decisions: np.ndarray | None = None
    others: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def value(self) -> float:
        """The metric."""
        return METRICS[self.metric].of(self.rows)

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.rows)


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a model's outputs mean.

    Attributes:
        labels: Label names in the order of its logits.
        sentence: What stands before and behind a sentence model; None for others.
    """

    labels: Sequence[str] = ()
    sentence: SentenceModel | None = None


class EvaluationData(abc.ABC):
    """Data that a model is measured on; subclasses are frozen dataclasses with ``path`` and ``examples``."""

    path: Path
    examples: Sequence[Any]
    unit: Unit = "examples"

    @abc.abstractmethod
    def measure(self, run: Batches, meaning: Meaning) -> Evaluation:
        """Runs a model over the examples.

        Args:
            run: The model on some backend, with its tokenizer.
            meaning: What its outputs mean.

        Raises:
            UsageError: If the data are for another kind of model, or hold a label that it does not know.
        """
