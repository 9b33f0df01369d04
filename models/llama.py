"""Llama and its kin: decoders with rotary positions, grouped keys, gated feed-forward layers and RMSNorm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.activations import Activation
from edgeq.models.adapter import CacheShape, Task
from edgeq.models.config_checks import check_epsilon
from edgeq.models.decoder import CachedDecoder, DecoderAdapter, Memory
from edgeq.models.rotary import ROPE_KEYS, TURNED_BEHIND, Rotary, check_rotary
from edgeq.models.stacks import Migration

UNDERSTOOD = ROPE_KEYS | frozenset(
    {"hidden_act", "rms_norm_eps", "tie_word_embeddings", "head_dim"}
    | {"attention_bias", "mlp_bias"}  # whether layers have biases, which are stored
    | {"pretraining_tp"}  # how matmuls were cut up in training; transformers reads it no longer
)
"""Keys of ``config.json`` that are read or checked."""


class LlamaAdapter(DecoderAdapter):
    """``LlamaForCausalLM``, such as SmolLM2 and TinyLlama."""

    family: ClassVar[str] = "llama"
    display_name: ClassVar[str] = "Llama"
    architectures: ClassVar[dict[str, Task]] = {"LlamaForCausalLM": "generate"}
    table: ClassVar[str] = "model.embed_tokens"
    first_state: ClassVar[str | None] = "model.embed_tokens"
    blocks: ClassVar[str] = "model.layers"
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    )
    largest_sizes: ClassVar[dict[str, int]] = {
        "vocab_size": 1 << 31,
        "hidden_size": 1 << 20,
        "num_hidden_layers": 1000,
        "num_attention_heads": 1 << 20,
        "num_key_value_heads": 1 << 20,
        "intermediate_size": 1 << 24,
        "max_position_embeddings": 1 << 24,
    }
    understood: ClassVar[frozenset[str]] = UNDERSTOOD
    least_opset: ClassVar[int] = 23
    unread_because: ClassVar[str] = TURNED_BEHIND

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        check_epsilon(config, "rms_norm_eps")
        if config.num_attention_heads % config.num_key_value_heads:
            raise FormatError(
                "config.json: num_attention_heads must be a multiple of num_key_value_heads, "
                f"found {config.num_attention_heads} and {config.num_key_value_heads}"
            )
        check_rotary(config, family=self.display_name, columns=self._head_size)

    @property
    def _head_size(self) -> int:
        config = self.config
        own = getattr(config, "head_dim", None)
        return int(own) if own is not None else config.hidden_size // config.num_attention_heads

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        return CacheShape(self.depth, self.config.num_key_value_heads, self._head_size)

    @property
    def migrations(self) -> list[Migration]:
        """See :attr:`ModelAdapter.migrations`; values that several heads share are left as they are."""
        moves = [
            Migration("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            Migration("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
            Migration("mlp.up_proj", ("mlp.down_proj",)),
        ]
        if self.config.num_key_value_heads == self.config.num_attention_heads:
            moves.insert(1, Migration("self_attn.v_proj", ("self_attn.o_proj",)))
        return [move.inside(block) for block in self.block_names for move in moves]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`GenerativeAdapter.export_module`."""
        return CachedLlama(model, positions=self.max_positions, cache=self.cache, activation=self.activation)


class Qwen2Adapter(LlamaAdapter):
    """``Qwen2ForCausalLM``, Qwen2.5 included: Llama with biases on queries, keys and values."""

    family: ClassVar[str] = "qwen2"
    display_name: ClassVar[str] = "Qwen2"
    architectures: ClassVar[dict[str, Task]] = {"Qwen2ForCausalLM": "generate"}
    understood: ClassVar[frozenset[str]] = UNDERSTOOD | {
        *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "use_mrope")
    }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        kinds = set(getattr(config, "layer_types", None) or ())
        if config.use_sliding_window or kinds - {"full_attention"}:
            raise UnsupportedError(
                "Qwen2 with attention in a sliding window (use_sliding_window, layer_types in config.json) is not "
                "supported, only with full attention"
            )
        if getattr(config, "use_mrope", False):
            raise UnsupportedError("Qwen2 with positions of several dimensions (use_mrope) is not supported")


class CachedLlama(CachedDecoder):
    """Llama on a cache; see :class:`CachedDecoder`.

    Args:
        model: A float or compressed ``LlamaForCausalLM``.
        positions: Longest text, for which angles are stored.
        cache: Size of the cache.
        activation: Activation of the gates.
    """

    def __init__(self, model: Any, *, positions: int, cache: CacheShape, activation: Activation) -> None:
        super().__init__(model, activation=activation)
        self.cache = cache
        self.rotary = Rotary.of(model.model.rotary_emb, positions=positions)

    @property
    def blocks(self) -> Iterable[Any]:
        """See :attr:`CachedDecoder.blocks`."""
        model: Any = self.model
        layers: Iterable[Any] = model.model.layers
        return layers

    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.embed`; positions are turned into queries and keys."""
        del position_ids
        model: Any = self.model
        state: torch.Tensor = model.model.embed_tokens(input_ids)
        return state

    def block(self, block: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        """See :meth:`CachedDecoder.block`."""
        layer, read = block.self_attn, _divided(block.input_layernorm, state)
        queries, keys, values = layer.q_proj(read), layer.k_proj(read), layer.v_proj(read)
        queries = self.rotary(queries, memory.positions, heads=queries.shape[-1] // self.cache.head_size)
        keys = self.rotary(keys, memory.positions, heads=self.cache.heads)
        state = state + layer.o_proj(memory.attend(queries, keys, values))
        read = _divided(block.post_attention_layernorm, state)
        gated = self.activation(block.mlp.gate_proj(read)) * block.mlp.up_proj(read)
        result: torch.Tensor = state + block.mlp.down_proj(gated)
        return result

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.logits`."""
        model: Any = self.model
        result: torch.Tensor = model.lm_head(_divided(model.model.norm, state))
        return result


def _divided(norm: Any, state: torch.Tensor) -> torch.Tensor:
    """RMSNorm, as one operator."""
    return functional.rms_norm(state, norm.weight.shape, norm.weight, norm.variance_epsilon)
