"""GPT-NeoX, Pythia included: decoders that turn a part of each head, with the two halves of a block in parallel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.models.activations import Activation
from edgeq.models.adapter import CacheShape, Task
from edgeq.models.config_checks import check_epsilon, check_heads
from edgeq.models.decoder import CachedDecoder, DecoderAdapter, Memory
from edgeq.models.rotary import ROPE_KEYS, TURNED_BEHIND, Rotary, check_rotary
from edgeq.models.stacks import Migration
from edgeq.models.transformers_release import RELEASE


class GptNeoxAdapter(DecoderAdapter):
    """``GPTNeoXForCausalLM``."""

    family: ClassVar[str] = "gpt_neox"
    display_name: ClassVar[str] = "GPT-NeoX"
    architectures: ClassVar[dict[str, Task]] = {"GPTNeoXForCausalLM": "generate"}
    table: ClassVar[str] = "gpt_neox.embed_in"
    first_state: ClassVar[str | None] = "gpt_neox.emb_dropout"
    head: ClassVar[str] = "embed_out" if RELEASE < 5 else "lm_head"
    blocks: ClassVar[str] = "gpt_neox.layers"
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("attention.query_key_value", "attention.dense"),
        *("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    )
    largest_sizes: ClassVar[dict[str, int]] = {
        "vocab_size": 1 << 31,
        "hidden_size": 1 << 20,
        "num_hidden_layers": 1000,
        "num_attention_heads": 1 << 20,
        "intermediate_size": 1 << 24,
        "max_position_embeddings": 1 << 24,
    }
    understood: ClassVar[frozenset[str]] = ROPE_KEYS | frozenset(
        {"hidden_act", "layer_norm_eps", "tie_word_embeddings", "use_parallel_residual", "attention_bias"}
        | {"is_decoder"}  # which it is, whatever it says
        | {"rotary_pct", "rotary_emb_base", "partial_rotary_factor"}  # read by transformers, whose angles are taken
    )
    least_opset: ClassVar[int] = 23
    unread_because: ClassVar[str] = TURNED_BEHIND

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        check_heads(self.config, width="hidden_size", heads="num_attention_heads")
        check_epsilon(self.config, "layer_norm_eps")
        check_rotary(self.config, family=self.display_name, columns=self._turned_columns)

    @property
    def _turned_columns(self) -> int:
        parameters = getattr(self.config, "rope_parameters", None) or {}  # release 5 of transformers
        share = parameters.get("partial_rotary_factor", getattr(self.config, "rotary_pct", 1.0))
        return int(self.cache.head_size * share)

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        heads = self.config.num_attention_heads
        return CacheShape(self.depth, heads, self.config.hidden_size // heads)

    @property
    def migrations(self) -> list[Migration]:
        """See :attr:`ModelAdapter.migrations`."""
        moves = [
            Migration("input_layernorm", ("attention.query_key_value",)),
            Migration("post_attention_layernorm", ("mlp.dense_h_to_4h",)),
        ]
        return [move.inside(block) for block in self.block_names for move in moves]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`GenerativeAdapter.export_module`."""
        return CachedGptNeox(
            model,
            activation=self.activation,
            positions=self.max_positions,
            cache=self.cache,
            parallel=bool(self.config.use_parallel_residual),
        )


class CachedGptNeox(CachedDecoder):
    """GPT-NeoX on a cache; see :class:`CachedDecoder`.

    Args:
        model: A float or compressed ``GPTNeoXForCausalLM``.
        activation: Activation of the feed-forward layers.
        positions: Longest text, for which angles are stored.
        cache: Size of the cache.
        parallel: Whether the feed-forward layers read what the attention reads, or the sum behind it.
    """

    columns: torch.Tensor

    def __init__(
        self, model: Any, *, activation: Activation, positions: int, cache: CacheShape, parallel: bool
    ) -> None:
        super().__init__(model, activation=activation)
        self.heads = cache.heads
        self.parallel = parallel
        self.rotary = Rotary.of(model.gpt_neox.rotary_emb, positions=positions)
        # One matmul computes query, key and value of the first head, then those of the next.
        columns = torch.arange(3 * cache.heads * cache.head_size).view(cache.heads, 3, cache.head_size)
        self.register_buffer("columns", columns.transpose(0, 1).reshape(3, -1), persistent=False)

    @property
    def blocks(self) -> Iterable[Any]:
        """See :attr:`CachedDecoder.blocks`."""
        model: Any = self.model
        layers: Iterable[Any] = model.gpt_neox.layers
        return layers

    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.embed`; positions are turned into queries and keys."""
        del position_ids
        model: Any = self.model
        state: torch.Tensor = model.gpt_neox.embed_in(input_ids)
        return state

    def block(self, block: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        """See :meth:`CachedDecoder.block`."""
        attended = self._attention(block.attention, block.input_layernorm(state), memory)
        if not self.parallel:
            state = attended + state
            return self._feed_forward(block, state) + state
        return self._feed_forward(block, state) + attended + state

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.logits`."""
        model: Any = self.model
        head = getattr(model, GptNeoxAdapter.head)
        result: torch.Tensor = head(model.gpt_neox.final_layer_norm(state))
        return result

    def _attention(self, layer: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        joined = layer.query_key_value(state)
        query, key, value = (joined.index_select(-1, columns) for columns in self.columns)
        query, key = (self.rotary(part, memory.positions, heads=self.heads) for part in (query, key))
        result: torch.Tensor = layer.dense(memory.attend(query, key, value))
        return result

    def _feed_forward(self, block: Any, state: torch.Tensor) -> torch.Tensor:
        mlp = block.mlp
        hidden = self.activation(mlp.dense_h_to_4h(block.post_attention_layernorm(state)))
        result: torch.Tensor = mlp.dense_4h_to_h(hidden)
        return result
