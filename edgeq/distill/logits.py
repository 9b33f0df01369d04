"""Losses between the logits of a student and those of its teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

MeanOver = Literal["examples", "elements"]


def soft_cross_entropy(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    temperature: float = 1.0,
    mask: torch.Tensor | None = None,
    mean_over: MeanOver = "examples",
) -> torch.Tensor:
    """Cross-entropy of the student's distribution with the teacher's as the target.

    Hinton et al., "Distilling the knowledge in a neural network" (2015), whose factor of ``temperature**2`` keeps
    the gradient's size; with temperature 1 it is the loss of TinyBERT, XTC and QuantGPT (L_dist).

    Args:
        student: float, ``[..., classes]``.
        teacher: float, the same shape.
        temperature: Divides both logits.
        mask: bool, ``[...]``: the places that count; None is all.
        mean_over: ``examples`` is the mean over places; ``elements`` divides by the number of classes as well,
            as the code of TinyBERT and XTC does.

    Returns:
        A float32 scalar; 0 where no place counts.
    """
    losses = temperature**2 * cross_entropies(student, teacher, temperature=temperature)
    mean = masked_mean(losses, mask)
    return mean / student.shape[-1] if mean_over == "elements" else mean


def cross_entropies(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """Returns the cross-entropy of each place, float32 ``[...]``, of logits ``[..., classes]``."""
    target = functional.softmax(_tempered(teacher.detach(), temperature), dim=-1)
    return -(target * functional.log_softmax(_tempered(student, temperature), dim=-1)).sum(dim=-1)


def _tempered(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    # Logits of a language model are the largest tensors of a step: a division by one would cost a twentieth of it.
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def squared_difference(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of logits: the loss for regression (XTC, TinyBERT), a float32 scalar."""
    return functional.mse_loss(student.float(), teacher.detach().float())


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Returns the mean of the values where ``mask`` (of the same shape) is true; 0 where it is true nowhere."""
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
