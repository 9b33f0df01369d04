"""The task's own loss, on the labels of the data."""

from __future__ import annotations

import torch
from torch.nn import functional

NO_LABEL = -100
"""Label of a place at which nothing is to be predicted: padding, or tokens of a prompt."""


def classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the labels.

    Args:
        logits: float, ``[batch, classes]``, or ``[batch, sequence, classes]`` of a language model.
        labels: int64, ``[batch]`` or ``[batch, sequence]``: the class, or the token that follows;
            :data:`NO_LABEL` where nothing is to be predicted.

    Returns:
        A float32 scalar: the mean over the places that have a label, 0 where none has.
    """
    total = functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
    )
    return total / (labels != NO_LABEL).sum().clamp(min=1)


def regression_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared error, a float32 scalar, of logits ``[batch, 1]`` and float labels ``[batch]``."""
    return functional.mse_loss(logits.float().squeeze(-1), labels.float())
