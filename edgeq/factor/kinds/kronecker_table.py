"""A vocabulary table as a Kronecker product, and an output head on the same numbers.

Tahaei et al. (NAACL 2022) and Edalati et al. (ACL 2022): ``E = A (x) b`` with one row of ``A`` an entry and a row
vector ``b`` of ``f`` numbers. A look-up is a row of ``A`` times ``b``; logits are ``h (A (x) b)^T = (h b) A^T``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UnsupportedError
from edgeq.factor.decompose import kronecker_sum, nearest_kronecker
from edgeq.factor.kinds.base import FactorModule, FactorSpec
from edgeq.factor.matrices import check_divides
from edgeq.models import ModelAdapter
from edgeq.quant.float_layers import weight_rows


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec(FactorSpec):
    """A table ``[rows, columns]`` as ``A (x) b``: a narrower table, and what each of its numbers becomes.

    Attributes:
        rows: Entries.
        columns: Width of what a look-up returns.
        factor: ``f``: numbers that one stored number becomes; the stored table has ``columns / f`` of them.
        terms: Number of products in the sum.
    """

    kind = "embedding"
    replaces = "embedding"

    rows: int
    columns: int
    factor: int
    terms: int = 1

    @property
    def stored_columns(self) -> int:
        """Width of the stored table."""
        return self.terms * self.columns // self.factor

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return self.rows * self.stored_columns + self.terms * self.factor

    @property
    def shape(self) -> tuple[int, int]:
        """Entries, and width of what a look-up returns."""
        return self.rows, self.columns

    def build(self, model: nn.Module) -> KroneckerEmbedding:  # noqa: ARG002  # it refers to no module
        """Makes the table."""
        return KroneckerEmbedding(self)


@dataclasses.dataclass(frozen=True)
class HeadSpec(FactorSpec):
    """An output head on the rows of a factorised table; it stores nothing.

    Attributes:
        table: Module name of the table.
    """

    kind = "head"
    refers_to = ("table",)
    belongs_to_head = True

    table: str

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return 0

    def build(self, model: nn.Module) -> KroneckerHead:
        """Makes the head of the table that is in ``model``.

        Raises:
            FormatError: If it is not.
        """
        table = dict(model.named_modules()).get(self.table)
        if not isinstance(table, KroneckerEmbedding):
            raise FormatError(f"config.json: {self.table!r} should be a factorised table")
        return KroneckerHead(self, table)

    def configure(self, config: Any) -> None:
        """Keeps transformers from tying ``weight`` attributes, which factorised tables do not have."""
        config.tie_word_embeddings = False


class KroneckerEmbedding(FactorModule):
    """Looks up rows of ``sum_r A_r (x) b_r``.

    Attributes:
        spec: Sizes.
        table: Float or packed table ``[rows, terms * columns / factor]``; the terms of one number are neighbours.
        right: float32 ``[terms, factor]``, the vectors ``b_r``.
    """

    spec: EmbeddingSpec

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

    def fill(self, weight: torch.Tensor) -> torch.Tensor:
        """Takes the factors nearest to a table; see :meth:`FactorModule.fill`."""
        shapes = (self.spec.rows, self.spec.columns // self.spec.factor), (1, self.spec.factor)
        left, right = nearest_kronecker(weight, *shapes, terms=self.spec.terms)
        self.set_factors(left, right.squeeze(1))
        return kronecker_sum(left, right)

    def table_parts(self) -> tuple[str, ...]:
        """Names, inside the layer, of the tables that are looked up by token."""
        return ("table",)


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


class KroneckerHead(FactorModule):
    """Logits from a factorised table, without the table that it stands for.

    Attributes:
        spec: Which table.
        rows: The matmul with the stored table, float or packed.
    """

    spec: HeadSpec

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

    def tied_parts(self) -> dict[str, str]:
        """The matmul is on the numbers of the table."""
        return {"rows": f"{self.spec.table}.table"}


def planned_table(model: nn.Module, adapter: ModelAdapter, factor: int) -> dict[str, FactorSpec]:
    """Decides what the vocabulary table and the heads on it become: nothing else if ``factor`` is 1.

    Raises:
        UsageError: If the factor does not divide the table's width.
        UnsupportedError: If something else than an output head looks up the same table.
    """
    if factor == 1:
        return {}
    name = adapter.embedding_names[0]  # the vocabulary is every family's first table
    rows, columns = weight_rows(model.get_submodule(name)).shape
    check_divides(f"{name}: factor of the table", columns, factor)
    uses = [user for user, table in adapter.tied_names.items() if table == name]
    if other := [use for use in uses if use not in adapter.linear_names]:
        raise UnsupportedError(f"{name} cannot be factorised, because {other[0]} looks up the same table")
    return {name: EmbeddingSpec(rows, columns, factor), **{use: HeadSpec(name) for use in uses}}
