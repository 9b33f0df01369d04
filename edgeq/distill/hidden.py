"""Loss between hidden states of a student and of its teacher."""

from __future__ import annotations

import torch

from edgeq.distill.logits import masked_mean


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of one pair of hidden states (TinyBERT, TernaryBERT, XTC, KnGPT2: L_hid).

    The papers' code averages over padding as well, which makes the loss depend on how batches are padded; here
    only real tokens count. Without padding the two are equal.

    Args:
        student: float, ``[batch, sequence, width]``.
        teacher: float, the same shape.
        mask: bool, ``[batch, sequence]``: real tokens.

    Returns:
        A float32 scalar.
    """
    return masked_mean((student.float() - teacher.detach().float()).square().mean(dim=-1), mask)
