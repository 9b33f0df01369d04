"""Losses between the attention maps of a student and those of its teacher."""

from __future__ import annotations

import torch
from torch.nn import functional


def score_loss(student: torch.Tensor, teacher: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of attention scores before the softmax (TinyBERT, TernaryBERT, XTC).

    Scores that the mask takes out of the softmax, above the diagonal of a causal model among them, are zero on
    both sides and not counted in the mean; the papers' code counts them, so that its loss falls with padding.

    Args:
        student: float, ``[batch, heads, queries, keys]``: scaled products of queries and keys.
        teacher: float, the same shape.
        pairs: bool, ``[batch, 1, queries, keys]``: a real query that sees a real key.

    Returns:
        A float32 scalar.
    """
    difference = torch.where(pairs, student.float() - teacher.detach().float(), 0.0)
    return difference.square().sum() / (pairs.sum() * student.shape[1]).clamp(min=1)


def probability_loss(student: torch.Tensor, teacher: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of attention probabilities, KL(teacher || student) (KnGPT2: L_att).

    Args:
        student: float scores, as in :func:`score_loss`.
        teacher: float scores.
        pairs: bool, ``[batch, 1, queries, keys]``.

    Returns:
        A float32 scalar: the mean over heads and real queries.
    """
    least = torch.finfo(torch.float32).min
    own = functional.log_softmax(student.float().masked_fill(~pairs, least), dim=-1)
    wanted = functional.log_softmax(teacher.detach().float().masked_fill(~pairs, least), dim=-1)
    terms = torch.where(pairs, wanted.exp() * (wanted - own), 0.0)
    rows = pairs.any(dim=-1).sum() * student.shape[1]
    return terms.sum() / rows.clamp(min=1)
