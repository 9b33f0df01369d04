"""The task: how many decisions a stage takes differently from PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.backends import Arrays
from edgeq.models.sentence import EMBEDDING
from edgeq.results import Check

SPARE = 2
"""Decisions that may differ beyond what noise changes."""


def decisions(outputs: Sequence[Arrays]) -> np.ndarray:
    """Returns what the model decides for each text.

    A classifier decides for the label of the largest logit. An encoder of sentences decides which of the
    other texts is nearest (cosine).

    Args:
        outputs: Outputs by name, one mapping a batch of texts.

    Returns:
        int64, one entry a text.
    """
    if "logits" in outputs[0]:
        return np.concatenate([batch["logits"].argmax(axis=-1) for batch in outputs])
    stacked = np.concatenate([batch[EMBEDDING] for batch in outputs]).astype(np.float64)
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True) + 1e-30
    cosines = stacked @ stacked.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def check_task(stage: str, got: np.ndarray, want: np.ndarray, noisy: Sequence[np.ndarray]) -> Check:
    """Applies the rule to one stage.

    Args:
        stage: Its name.
        got: Its decisions.
        want: The reference's decisions.
        noisy: The decisions of each noise run.
    """
    changed = int((got != want).sum())
    under_noise = max(int((run != want).sum()) for run in noisy)
    limit = under_noise + SPARE
    why = f"noise changes {under_noise}, plus {SPARE}"
    detail = f"{changed} of {len(want)} decisions differ (limit {limit}: {why})"
    measured: dict[str, float | int | str] = {"changed": changed, "limit": limit, "texts": len(want)}
    return Check(stage, "task", changed <= limit, detail, measured)
