"""Losses on sentence embeddings."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Pooling = Literal["mean", "cls"]


def pool_states(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Turns token states into one vector a text.

    Args:
        states: float, ``[batch, sequence, width]``.
        mask: bool, ``[batch, sequence]``: real tokens.
        pooling: ``mean`` over the real tokens, or ``cls`` for the first one.

    Returns:
        float32, ``[batch, width]``.
    """
    states = states.float()
    if pooling == "cls":
        return states[:, 0]
    weights = mask[:, :, None].float()
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def embedding_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of ``1 - cosine`` between a text's two embeddings, ``[batch, width]`` each: a float32 scalar."""
    return (1 - functional.cosine_similarity(student.float(), teacher.detach().float(), dim=-1)).mean()
