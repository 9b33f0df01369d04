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
        bias: float32 ``[rows]``, or None.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        down, across = spec.grid
        self.parts = nn.ModuleList(build_block(spec.part) for _ in range(down * across))
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if spec.bias else None

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
        pieces = x.chunk(across, dim=-1)
        outputs = []
        for row in range(down):
            total = self.parts[row * across](pieces[0])
            for column in range(1, across):
                total = total + self.parts[row * across + column](pieces[column])
            outputs.append(total)
        y = torch.cat(outputs, dim=-1) if down > 1 else outputs[0]
        return y if self.bias is None else y + self.bias


def build_block(spec: KroneckerSpec | LowRankSpec) -> KroneckerLinear | LowRankLinear:
    """Makes the layer that ``spec`` describes."""
    return KroneckerLinear(spec) if isinstance(spec, KroneckerSpec) else LowRankLinear(spec)
