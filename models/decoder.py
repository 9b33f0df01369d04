"""Decoders of texts: what GPT-2, OPT, GPT-NeoX, Llama and their kin have in common, so that each is a short file.

All are one table of tokens, one stack of blocks and an output head, on a cache that is passed in and out. A family says
how its modules are called, and what a block computes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.models.activations import ACTIVATIONS, Activation, check_activation
from edgeq.models.adapter import GenerativeAdapter
from edgeq.models.cache import Stored, append, attend, causal_mask, keys_and_values, read, split_heads, store
from edgeq.models.config_checks import check_sizes
from edgeq.models.stacks import AttentionTap, LayerStack
from edgeq.models.understood_keys import check_understood

POSITIONS_STAY_FLOAT = "positions are added to the state that every layer adds to, and are few"


class DecoderAdapter(GenerativeAdapter):
    """A family of decoders; subclasses name its modules and its configuration's fields."""

    display_name: ClassVar[str]
    """Name of the family in messages."""
    table: ClassVar[str]
    """Module name of the table of tokens."""
    positions_table: ClassVar[str | None] = None
    """Module name of the table of positions, if there is one."""
    head: ClassVar[str] = "lm_head"
    """Module name of the output head."""
    blocks: ClassVar[str]
    """Module name of the list of blocks."""
    first_state: ClassVar[str | None] = None
    """Module whose output is what the first block reads, if there is one."""
    linears_of_a_block: ClassVar[tuple[str, ...]]
    """Names inside a block of its linear layers, in the order in which they run."""
    depth_field: ClassVar[str] = "num_hidden_layers"
    """Field of the configuration that holds the number of blocks."""
    width_field: ClassVar[str] = "hidden_size"
    """Field of the configuration that holds the width of the states."""
    positions_field: ClassVar[str] = "max_position_embeddings"
    """Field of the configuration that holds the longest text."""
    activation_field: ClassVar[str] = "hidden_act"
    """Field of the configuration that names the activation."""
    largest_sizes: ClassVar[dict[str, int]]
    """Sizes in the configuration, with the largest value of each."""
    understood: ClassVar[frozenset[str]]
    """Keys of ``config.json`` that are read or checked, besides those of ``largest_sizes``."""

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`; families add checks of their own."""
        config = self.config
        check_understood(config, self.understood | set(self.largest_sizes), family=self.display_name)
        check_sizes(config, self.largest_sizes)
        check_activation(config, self.activation_field, family=self.display_name)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return int(getattr(self.config, self.depth_field))

    @property
    def activation(self) -> Activation:
        """Activation of the feed-forward layers."""
        return ACTIVATIONS[getattr(self.config, self.activation_field)]

    @property
    def block_names(self) -> list[str]:
        """Module names of the blocks."""
        return [f"{self.blocks}.{index}" for index in range(self.depth)]

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        return [*(f"{block}.{linear}" for block in self.block_names for linear in self.linears_of_a_block), self.head]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [self.table, *([self.positions_table] if self.positions_table is not None else [])]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return {self.head: self.table} if self.config.tie_word_embeddings else {}

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return {self.positions_table: POSITIONS_STAY_FLOAT} if self.positions_table is not None else {}

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return [self.table, *self.block_names]

    @property
    def taps(self) -> tuple[AttentionTap, ...]:
        """Attentions of each block whose queries and keys can be read; none where positions turn them."""
        return ()

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`; none where what the first block reads is no module's output."""
        if self.first_state is None:
            return ()
        stack = LayerStack(
            name="decoder",
            blocks=self.blocks,
            depth=self.depth,
            depth_field=self.depth_field,
            width=getattr(self.config, self.width_field),
            embedding=self.first_state,
            attentions=self.taps,
        )
        return (stack,)

    @property
    def input_names(self) -> list[str]:
        """The ids, the mask of past and present tokens, and the positions; the cache comes behind them."""
        return ["input_ids", "attention_mask", "position_ids"]

    @property
    def output_names(self) -> list[str]:
        """The logits of every present token; the cache comes behind them."""
        return ["logits"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return int(getattr(self.config, self.positions_field))


class Memory:
    """What the attention of one block may look at: the tokens of its past, and those that it is called with.

    Args:
        key: Keys of the past, ``[batch, key heads, past, head_size]`` as the cache holds them.
        value: Values of the past, of the same shape.
        mask: float32, added to the scores, ``[batch, 1, queries, past + queries]``.
        positions: int64, ``[batch, queries]``.
    """

    def __init__(self, key: Stored, value: Stored, mask: torch.Tensor, positions: torch.Tensor) -> None:
        self.key, self.value = key, value
        self.positions = positions
        self._mask = mask

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float | None = None
    ) -> torch.Tensor:
        """Appends the keys and values of the present tokens to those of the past, and attends to all.

        Args:
            query: float32, ``[batch, queries, width]``.
            key: float32, ``[batch, queries, key heads * head_size]``.
            value: float32, of the same shape.
            scale: Factor on the dot products; None is one over the square root of ``head_size``.

        Returns:
            float32, ``[batch, queries, width]``.
        """
        stored = self.key[0]
        key_heads, head_size = stored.shape[1], stored.shape[3]
        new_key, new_value = (store(split_heads(part, key_heads), stored.dtype) for part in (key, value))
        self.key, self.value = append(self.key, new_key), append(self.value, new_value)
        heads = query.shape[-1] // head_size
        return attend(split_heads(query, heads), read(self.key), read(self.value), self._mask, scale=scale)


class CachedDecoder(nn.Module, abc.ABC):
    """A decoder on a cache that is passed in and out: what is exported, and the reference of all backends.

    The layers are those of the wrapped model; the order of operations is written out in subclasses, because the graph
    must not change with the version of ``transformers``.

    Args:
        model: A float or compressed model with an output head.
        activation: Activation of the feed-forward layers.
    """

    def __init__(self, model: nn.Module, *, activation: Activation) -> None:
        super().__init__()
        self.model = model
        self.activation = activation

    @property
    @abc.abstractmethod
    def blocks(self) -> Iterable[Any]:
        """The blocks of the model."""

    @abc.abstractmethod
    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Returns the state that the first block reads, float32 ``[batch, sequence, width]``."""

    @abc.abstractmethod
    def block(self, block: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Returns the state behind a block, which attends once."""

    @abc.abstractmethod
    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """Returns the logits, float32 ``[batch, sequence, vocabulary]``, from the state behind the last block."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """Reads tokens after a past that may be empty.

        Args:
            input_ids: int64, ``[batch, sequence]``.
            attention_mask: int64, ``[batch, past + sequence]``, 1 for a token and 0 for padding.
            position_ids: int64, ``[batch, sequence]``; padding may have any position that exists.
            past: Key and value of each layer in turn, ``[batch, key heads, past, head_size]`` in the cache's type;
                as int8, each with its scales behind it.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then each layer's key and value with those of
            ``input_ids`` appended.
        """
        state = self.embed(input_ids, position_ids)
        mask = causal_mask(attention_mask, past=past[0].shape[2], queries=input_ids.shape[1])
        present: list[torch.Tensor] = []
        for block, (key, value) in zip(self.blocks, keys_and_values(past), strict=True):
            memory = Memory(key, value, mask, position_ids)
            state = self.block(block, state, memory)
            present += [*memory.key, *memory.value]
        return self.logits(state), *present
