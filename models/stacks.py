"""Where a model's blocks are: what distillation reads from them, and what layer reduction keeps of them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AttentionTap:
    """Where one attention of a block computes its queries and keys.

    Attributes:
        name: ``self`` or ``cross``.
        query: Module inside the block whose output holds the queries, ``[batch, queries, width]``.
        key: Module inside the block whose output holds the keys, ``[batch, keys, width]``.
        heads: Attention heads.
        causal: Whether a query sees only the keys up to its own place.
        parts: Equal parts that the modules' outputs are made of: 3 where one matmul computes queries, keys and
            values, which then are the parts 0, 1 and 2; otherwise 1.
    """

    name: str
    query: str
    key: str
    heads: int
    causal: bool = False
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class Migration:
    """A place where factors may move from a module's output into the layers that read it, with no other effect.

    Attributes:
        source: The norm or linear layer that makes the output.
        readers: The linear layers that read it; nothing else does.
        part: Which of ``parts`` equal parts of the output they read.
        parts: 3 where one matmul computes queries, keys and values; otherwise 1.
    """

    source: str
    readers: tuple[str, ...]
    part: int = 0
    parts: int = 1

    def inside(self, block: str) -> Migration:
        """Returns the same with names that begin with the name of a block."""
        names = tuple(f"{block}.{reader}" for reader in self.readers)
        return dataclasses.replace(self, source=f"{block}.{self.source}", readers=names)


@dataclasses.dataclass(frozen=True)
class LayerStack:
    """Blocks of the same form, one on the other.

    Attributes:
        name: ``encoder`` or ``decoder``.
        blocks: Name of the ``nn.ModuleList`` that holds the blocks.
        depth: Number of blocks.
        depth_field: Field of the configuration that holds ``depth``.
        width: Width of the state that the blocks hand on.
        embedding: Module whose output is the first block's input (up to dropout).
        attentions: The attentions of each block whose queries and keys can be read; empty where none can.
        migrations: Where factors may move inside each block.
    """

    name: str
    blocks: str
    depth: int
    depth_field: str
    width: int
    embedding: str
    attentions: tuple[AttentionTap, ...]
    migrations: tuple[Migration, ...] = ()

    def hidden_name(self, index: int) -> str:
        """Returns the module whose output is hidden state ``index``: 0 for the embeddings, then the blocks'."""
        return self.embedding if index == 0 else self.block(index - 1)

    def all_migrations(self) -> list[Migration]:
        """Returns the migrations of every block, with whole module names."""
        return [one.inside(self.block(index)) for index in range(self.depth) for one in self.migrations]

    def block(self, index: int) -> str:
        """Returns the module name of a block, counted from 0."""
        return f"{self.blocks}.{index}"
