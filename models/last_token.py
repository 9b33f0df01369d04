"""Models that label a text by the state of its last token."""

from __future__ import annotations

import torch


def last_state(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Returns the state of the last of some tokens of each text.

    Args:
        states: float32, ``[batch, sequence, width]``.
        chosen: int64, ``[batch, sequence]``, 1 for a token that may be the one.

    Returns:
        float32, ``[batch, width]``; zeros for a text without such a token.
    """
    before = chosen.cumsum(dim=1)  # chosen tokens up to each place
    last = (before == chosen.sum(dim=1, keepdim=True)) & (chosen > 0)
    # One product, in which all other tokens have the weight 0, as pooling does it.
    return torch.matmul(last.to(states.dtype)[:, None, :], states).squeeze(1)
