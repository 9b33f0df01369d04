"""Texts with a label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.errors import UsageError
from edgeq.evaluate.batches import Batches
from edgeq.evaluate.evaluation import Evaluation, Meaning

if TYPE_CHECKING:
    from edgeq.evaluate.data import EvaluationSet


def measure_accuracy(run: Batches, data: EvaluationSet, meaning: Meaning) -> Evaluation:
    """Returns the share of texts whose label is the one of the largest logit.

    Raises:
        UsageError: If the model is no classifier, or does not know a label.
    """

    def read(_: int, outputs: dict[str, np.ndarray]) -> int:
        if "logits" not in outputs:
            raise UsageError(f"{data.path} holds labels, which need a classifier, not an embedding model")
        return int(outputs["logits"].argmax())

    targets = np.array([label_number(data.path, str(e.target), meaning.labels) for e in data.examples], np.int64)
    decisions = np.array(run.of_texts([(e.first, e.second) for e in data.examples], read), np.int64)
    return Evaluation("accuracy", (decisions == targets).astype(np.float64)[:, None], decisions)


def label_number(path: Path, label: str, labels: Sequence[str]) -> int:
    """Returns the number of a label, which a file names or gives as a number.

    Raises:
        UsageError: If the model has no such label.
    """
    known = list(labels)
    if label in known:
        return known.index(label)
    alike = [index for index, name in enumerate(known) if name.casefold() == label.casefold()]
    if len(alike) == 1:  # "entailment" of a file is "ENTAILMENT" of a model
        return alike[0]
    if label.isascii() and label.isdigit() and int(label) < len(known):
        return int(label)
    raise UsageError(f"{path}: label {label!r} is none of the model's labels ({', '.join(known) or 'it has none'})")
