"""Logit distillation that weighs each token by how badly the teacher itself predicts it."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeq.distill.labels import NO_LABEL
from edgeq.distill.logits import cross_entropies


def token_scaled_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    scale_temperature: float = 10.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Token-scaled logit distillation (TSLD).

    Kim et al., "Token-scaled logit distillation for ternary weight generative language models" (NeurIPS 2023):
    the weights of a sequence's tokens are a softmax over the teacher's cross-entropies with the labels, divided
    by ``scale_temperature``, and sum to 1.

    Args:
        student: float, ``[batch, sequence, vocabulary]``.
        teacher: float, the same shape.
        labels: int64, ``[batch, sequence]``; :data:`NO_LABEL` where nothing is to be predicted.
        scale_temperature: The paper's 10: the higher, the more alike are the weights.
        temperature: Divides both logits in the distillation itself.

    Returns:
        A float32 scalar: the mean over sequences that have a label.
    """
    counted = labels != NO_LABEL
    with torch.no_grad():
        own = functional.cross_entropy(
            teacher.float().transpose(1, 2), labels, ignore_index=NO_LABEL, reduction="none"
        )
        # Rows without any label would be 0/0; they are weighed 0 below.
        scores = (own / scale_temperature).masked_fill(~counted, torch.finfo(torch.float32).min)
        weights = functional.softmax(scores, dim=-1) * counted
    losses = temperature**2 * cross_entropies(student, teacher, temperature=temperature)
    return (weights * losses).sum() / counted.any(dim=-1).sum().clamp(min=1)
