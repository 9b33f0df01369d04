"""A linear layer cut into blocks that are factorised one by one.

GPT-2 holds queries, keys and values in one matrix, whose three parts have little in common; the Tucker paper's
parameterisation II cuts the feed-forward matrices into four.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeq.factor.kronecker import KroneckerLinear
from edgeq.factor.low_rank import LowRankLinear
from edgeq.factor.specs import BlockSpec, KroneckerSpec, LowRankSpec


class BlockLinear(nn.Module):
    """``y_i = sum_j part_ij x_j``, outputs side by side, ``+ bias``.

    Attributes:
        spec: The grid, and what one block is.
        parts: The blocks row by row.
        bias: float32 ``[rows]``, or None where there is none, or the blocks have it.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        down, across = spec.grid
        self.parts = nn.ModuleList(build_block(spec.part) for _ in range(down * across))
        own_bias = spec.bias and not spec.part.bias
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if own_bias else None

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
        down, across = self.spec.grid
        pieces = x.chunk(across, dim=-1) if across > 1 else (x,)  # a split into one would stay in the graph
        outputs = []
        for row in range(down):
            total = self.parts[row * across](pieces[0])
            for column in range(1, across):
                total = total + self.parts[row * across + column](pieces[column])
            outputs.append(total)
        y = torch.cat(outputs, dim=-1) if down > 1 else outputs[0]
        return y if self.bias is None else y + self.bias

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[rows]``."""
        if self.bias is not None:
            self.bias.data.copy_(bias)
            return
        for part, own in zip(self.parts, bias.chunk(len(self.parts)), strict=True):
            if isinstance(part, KroneckerLinear | LowRankLinear):
                part.set_bias(own)


def build_block(spec: KroneckerSpec | LowRankSpec) -> KroneckerLinear | LowRankLinear:
    """Makes the layer that ``spec`` describes."""
    return KroneckerLinear(spec) if isinstance(spec, KroneckerSpec) else LowRankLinear(spec)
