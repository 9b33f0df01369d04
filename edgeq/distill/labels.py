"""The task's own loss, on the labels of the data."""

from __future__ import annotations

import torch
from torch.nn import functional

NO_LABEL = -100
"""Label of a place at which nothing is to be predicted: padding, or tokens of a prompt."""


def classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with the labels.

    Args:
        logits: float, ``[batch, classes]``, or ``[batch, places, classes]``.
        labels: int64, ``[batch]`` or ``[batch, places]``: the class, such as the label of a token, the token that
            follows, or where an answer starts and ends; :data:`NO_LABEL` where nothing is to be predicted.

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


def relevance_loss(logits: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each document by itself, relevant or not, as sentence-transformers trains rerankers.

    Args:
        logits: float, ``[batch, 1]``.
        relevance: float, ``[batch]``, 0 to 1.

    Returns:
        A float32 scalar.
    """
    return functional.binary_cross_entropy_with_logits(logits.float().squeeze(-1), relevance.float())
