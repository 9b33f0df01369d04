"""Parts of graphs that label a text by the state of its last token, in the operators that edgeq has kernels for."""

from __future__ import annotations

import torch


def causal_mask(places: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Says what each token of a text may see: itself and what is before it, but no padding.

    Args:
        places: int64, ``[sequence]``: 0, 1, 2 and so on, cut from a constant.
        attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding; None hides no padding.

    Returns:
        float32 ``[batch, 1, sequence, sequence]`` (or of batch 1) to add to attention scores: 0, or the least float32.
    """
    visible = ~(places[None, :] > places[:, None])[None, None]
    if attention_mask is not None:
        visible = visible & (attention_mask > 0)[:, None, None, :]
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)


def last_state(states: torch.Tensor, chosen: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Returns the state of the last of some tokens of each text.

    Args:
        states: float32, ``[batch, sequence, width]``.
        chosen: int64, ``[batch, sequence]``, 1 for a token that may be the one.
        places: int64, ``[sequence]``: 0, 1, 2 and so on.

    Returns:
        float32, ``[batch, width]``; the state of the first place for a text without such a token.
    """
    total = chosen.sum(dim=1, keepdim=True)
    last = (chosen.cumsum(dim=1) == total).to(torch.int64) * chosen
    first = (places == 0).to(torch.int64) * (total == 0).to(torch.int64)
    # One matmul, in which all other tokens have the weight 0, as pooling does it.
    return torch.matmul((last + first).to(states.dtype)[:, None, :], states).squeeze(1)
