"""Places of tokens, how far they are apart, and what is stored by distance."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Distances(nn.Module):
    """Distances between the tokens of a text, as rows of a table that begins with the most negative one.

    Args:
        longest: Longest text, in tokens.
        values: int64, ``[2 * longest - 1]``: what is known of each distance, from ``1 - longest`` on.
    """

    places: torch.Tensor
    values: torch.Tensor

    def __init__(self, longest: int, values: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(longest), persistent=False)
        self.register_buffer("values", values[:, None], persistent=False)

    def forward(self, length: int) -> torch.Tensor:
        """Returns what is known of each row's place less each column's, int64 ``[length, length]``."""
        places = self.places[:length]
        rows = places[:, None] - places[None, :] + (len(self.places) - 1)
        return functional.embedding(rows, self.values).squeeze(-1)
