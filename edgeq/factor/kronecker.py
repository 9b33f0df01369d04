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
        bias: float32 ``[m1 m2]``; None if there is none, or if the last of the two layers makes whole outputs and has
            the bias itself.
    """

    def __init__(self, spec: KroneckerSpec) -> None:
        super().__init__()
        self.spec = spec
        (m1, n1), (m2, n2), terms = spec.left, spec.right, spec.terms
        inner = spec.bias and (m2 if spec.right_first else m1) == 1
        if spec.right_first:
            self.right = nn.Linear(n2, terms * m2, bias=False)
            self.left = nn.Linear(terms * n1, m1, bias=inner)
        else:
            self.left = nn.Linear(n1, terms * m1, bias=False)
            self.right = nn.Linear(terms * n2, m2, bias=inner)
        self.bias = nn.Parameter(torch.zeros(spec.rows)) if spec.bias and not inner else None

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
        if self.spec.right_first:
            state = self.right(x.unflatten(-1, (n1, n2)))  # [..., n1, R m2]
            state = self.left(_regrouped(state, terms, m2))  # [..., m2, m1], or [..., m1]
            y = state if m2 == 1 else state.transpose(-1, -2).flatten(-2)
        else:
            columns = x if n2 == 1 else x.unflatten(-1, (n1, n2)).transpose(-1, -2)
            state = self.left(columns)  # [..., n2, R m1]
            state = self.right(_regrouped(state.unsqueeze(-2) if n2 == 1 else state, terms, m1))
            y = state if m1 == 1 else state.flatten(-2)
        return y if self.bias is None else y + self.bias

    def set_bias(self, bias: torch.Tensor) -> None:
        """Stores a bias: ``[m1 m2]``."""
        parts = (self.bias, self.left.bias, self.right.bias)
        next(part for part in parts if part is not None).data.copy_(bias)

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


def _regrouped(state: torch.Tensor, terms: int, outputs: int) -> torch.Tensor:
    """Makes the terms of a sum, and what the first factor left open, the input of the second one.

    Args:
        state: ``[..., n, terms outputs]``.
        terms: Number of products in the sum.
        outputs: Outputs of the first factor.

    Returns:
        ``[..., outputs, terms n]``, or ``[..., terms n]`` if ``outputs`` is 1.
    """
    if outputs == 1:
        return (state if terms == 1 else state.transpose(-1, -2)).flatten(-2)
    if terms == 1:
        return state.transpose(-1, -2)
    return state.unflatten(-1, (terms, outputs)).movedim(-3, -1).transpose(-3, -2).flatten(-2)
