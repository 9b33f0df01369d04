"""A vocabulary table as a Kronecker product, and an output head on the same numbers.

Tahaei et al. (NAACL 2022) and Edalati et al. (ACL 2022): ``E = A (x) b`` with one row of ``A`` an entry and a row
vector ``b`` of ``f`` numbers. A look-up is a row of ``A`` times ``b``; logits are ``h (A (x) b)^T = (h b) A^T``.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeq.factor.specs import EmbeddingSpec, HeadSpec


class KroneckerEmbedding(nn.Module):
    """Looks up rows of ``sum_r A_r (x) b_r``.

    Attributes:
        spec: Sizes.
        table: Float or packed table ``[rows, terms * columns / factor]``; the terms of one number are neighbours.
        right: float32 ``[terms, factor]``, the vectors ``b_r``.
    """

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.spec = spec
        self.table = nn.Embedding(spec.rows, spec.stored_columns)
        self.right = nn.Parameter(torch.zeros(spec.terms, spec.factor))

    @property
    def num_embeddings(self) -> int:
        """Entries."""
        return self.spec.rows

    @property
    def embedding_dim(self) -> int:
        """Width of what a look-up returns."""
        return self.spec.columns

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks rows up: int64 ``[...]`` to float32 ``[..., columns]``."""
        rows = self.table(ids).unflatten(-1, (-1, self.spec.terms))
        if self.spec.terms == 1:
            return (rows * self.right).flatten(-2)
        return (rows @ self.right).flatten(-2)

    def set_factors(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Stores the factors: ``left [terms, rows, columns / factor]`` and ``right [terms, factor]``."""
        with torch.no_grad():
            self.table.weight.copy_(left.permute(1, 2, 0).flatten(1))
            self.right.copy_(right)


class TiedRows(nn.Linear):
    """A linear layer without bias on the rows of a table that another module holds."""

    def __init__(self, embedding: KroneckerEmbedding) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = embedding.spec.stored_columns, embedding.spec.rows
        self._embeddings = (embedding,)  # in a tuple, or it would become a part of this module
        self.register_parameter("bias", None)

    @property
    def weight(self) -> nn.Parameter:  # type: ignore[override]  # a parameter of other linear layers
        """The table's weights."""
        weight: nn.Parameter = self._embeddings[0].table.weight  # type: ignore[assignment]
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiplies by the table: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        return functional.linear(x, self.weight)


class KroneckerHead(nn.Module):
    """Logits from a factorised table, without the table that it stands for.

    Attributes:
        spec: Which table.
        rows: The product with the stored table, float or packed.
    """

    def __init__(self, spec: HeadSpec, embedding: KroneckerEmbedding) -> None:
        super().__init__()
        self.spec = spec
        self._embeddings = (embedding,)
        self.rows: nn.Module = TiedRows(embedding)

    @property
    def embedding(self) -> KroneckerEmbedding:
        """The table."""
        return self._embeddings[0]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Computes logits: float32 ``[..., columns]`` to float32 ``[..., rows]``."""
        spec = self.embedding.spec
        folded = states.unflatten(-1, (-1, spec.factor)) @ self.embedding.right.T  # [..., columns / f, terms]
        logits: torch.Tensor = self.rows(folded.flatten(-2))
        return logits
