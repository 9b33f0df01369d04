"""A linear layer of low rank: the baseline that any other factorisation has to beat."""

from __future__ import annotations

import torch
from torch import nn

from edgeq.factor.specs import LowRankSpec


class LowRankLinear(nn.Module):
    """``y = up(core(down(x))) + bias``; parameterisation II of Ren et al. (arXiv 2205.10036) if it has a core.

    Attributes:
        spec: Sizes.
        down: Linear layer ``columns -> rank``.
        core: Linear layer ``rank -> rank``, or None.
        up: Linear layer ``rank -> rows``, with the bias.
    """

    def __init__(self, spec: LowRankSpec) -> None:
        super().__init__()
        self.spec = spec
        self.down = nn.Linear(spec.columns, spec.rank, bias=False)
        self.core = nn.Linear(spec.rank, spec.rank, bias=False) if spec.core else None
        self.up = nn.Linear(spec.rank, spec.rows, bias=spec.bias)

    @property
    def in_features(self) -> int:
        """Input features."""
        return self.spec.columns

    @property
    def out_features(self) -> int:
        """Output features."""
        return self.spec.rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        state = self.down(x)
        if self.core is not None:
            state = self.core(state)
        y: torch.Tensor = self.up(state)
        return y

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        self.up.bias.data.copy_(bias)
