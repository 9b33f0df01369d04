"""What differs between the releases of transformers that edgeq works with."""

from __future__ import annotations

import torch
import transformers

RELEASE = int(transformers.__version__.partition(".")[0])
"""The first number of the installed release."""


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Returns the mask as BERT and its kin take it without expanding it to sequence x sequence for every text.

    Release 4 makes an additive mask of three dimensions, release 5 takes one of four as it is; both come to the same.

    Args:
        attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.

    Returns:
        int64 ``[batch, 1, sequence]``, or float32 ``[batch, 1, 1, sequence]``.
    """
    return attention_mask[:, None, :] if RELEASE < 5 else additive_mask(attention_mask, torch.float32)


def additive_mask(attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns what is added to attention scores: 0 for a token, the lowest number for padding.

    Args:
        attention_mask: int64, ``[batch, sequence]``.
        dtype: Type of the scores.

    Returns:
        ``[batch, 1, 1, sequence]``.
    """
    return (1.0 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
