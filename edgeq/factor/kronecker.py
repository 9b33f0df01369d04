"""A linear layer whose matrix is a sum of Kronecker products, applied factor by factor.

Tahaei et al., KroneckerBERT (NAACL 2022), and Edalati et al., KnGPT2 (ACL 2022): with ``x`` seen as a matrix
``X [n1, n2]``, ``(A (x) B) x`` is ``A X B^T`` row by row, so the large matrix never exists.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeq.factor.specs import KroneckerSpec


class KroneckerLinear(nn.Module):
    """``y = sum_r (A_r (x) B_r) x + bias``.

    The terms of a sum stand side by side in two ordinary linear layers, ``right`` and ``left``, so that one product
    each does them all and either can be packed like any other layer. The cheaper of the two orders is used.

    Attributes:
        spec: Shapes of the factors.
        left: Float or packed linear layer that holds all ``A_r``.
        right: Float or packed linear layer that holds all ``B_r``.
        bias: float32 ``[m1 m2]``, or None.
    """

    def __init__(self, spec: KroneckerSpec) -> None:
        super().__init__()
        self.spec = spec
        (m1, n1), (m2, n2), terms = spec.left, spec.right, spec.terms
        if spec.right_first:
            self.right = nn.Linear(n2, terms * m2, bias=False)
            self.left = nn.Linear(terms * n1, m1, bias=False)
        else:
            self.left = nn.Linear(n1, terms * m1, bias=False)
            self.right = nn.Linear(terms * n2, m2, bias=False)
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
        """Computes the layer.

        Args:
            x: float32, ``[..., n1 n2]``.

        Returns:
            float32, ``[..., m1 m2]``.
        """
        (m1, n1), (m2, n2), terms = self.spec.left, self.spec.right, self.spec.terms
        state = x.unflatten(-1, (n1, n2))
        if self.spec.right_first:
            state = self.right(state)  # [..., n1, R m2], term by term
            state = _swapped(state, (n1, terms, m2)).flatten(-2)  # [..., m2, R n1]
            state = _transposed(self.left(state), m2, m1)
        else:
            state = self.left(_transposed(state, n1, n2))  # [..., n2, R m1]
            state = _swapped(state, (n2, terms, m1)).flatten(-2)  # [..., m1, R n2]
            state = self.right(state)
        y = state.flatten(-2)
        return y if self.bias is None else y + self.bias

    def set_factors(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Stores the factors.

        Args:
            left: ``[terms, m1, n1]``.
            right: ``[terms, m2, n2]``.
        """
        with torch.no_grad():
            if self.spec.right_first:
                self.right.weight.copy_(right.flatten(0, 1))
                self.left.weight.copy_(left.permute(1, 0, 2).flatten(1))
            else:
                self.left.weight.copy_(left.flatten(0, 1))
                self.right.weight.copy_(right.permute(1, 0, 2).flatten(1))

    def extra_repr(self) -> str:
        """Describes the layer in ``print(model)``."""
        (m1, n1), (m2, n2) = self.spec.left, self.spec.right
        return f"{self.spec.terms} x ({m1} x {n1}) (x) ({m2} x {n2})"


def _transposed(state: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """``[..., rows, columns]`` to ``[..., columns, rows]``; a vector is only seen in another shape."""
    if min(rows, columns) == 1:
        return state.flatten(-2).unflatten(-1, (columns, rows))
    return state.transpose(-1, -2)


def _swapped(state: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    """``[..., a, r b]`` to ``[..., b, r, a]``, where the last axis holds ``r`` groups of ``b``."""
    a, r, b = sizes
    if r == 1:
        return _transposed(state, a, b).unsqueeze(-2)
    return state.unflatten(-1, (r, b)).movedim(-3, -1).transpose(-3, -2)
