"""Llama and its kin: decoders with rotary positions, grouped keys, gated feed-forward layers and RMSNorm."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.activations import ACTIVATIONS, Activation, check_activation
from edgeq.models.adapter import CacheShape, GenerativeAdapter, Task
from edgeq.models.cache import DEFAULT_CACHE_DTYPE, attend, causal_mask, split_heads
from edgeq.models.config_checks import check_epsilon, check_sizes
from edgeq.models.stacks import LayerStack
from edgeq.models.understood_keys import check_understood

HEAD = "lm_head"
TABLE = "model.embed_tokens"
_LINEARS_OF_A_LAYER = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "num_key_value_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose angles do not depend on the length of the text."""
UNDERSTOOD = frozenset(
    {*_LARGEST_SIZES, "hidden_act", "rms_norm_eps", "tie_word_embeddings", "head_dim"}
    | {"rope_theta", "rope_scaling", "rope_parameters"}  # read by transformers, whose angles are taken
    | {"attention_bias", "mlp_bias"}  # whether layers have biases, which are stored
    | {"pretraining_tp"}  # how products were cut up in training; transformers reads it no longer
)
"""Keys of ``config.json`` that are read or checked."""


class LlamaAdapter(GenerativeAdapter):
    """``LlamaForCausalLM``, such as SmolLM2 and TinyLlama."""

    family: ClassVar[str] = "llama"
    display_name: ClassVar[str] = "Llama"
    architectures: ClassVar[dict[str, Task]] = {"LlamaForCausalLM": "generate"}
    understood: ClassVar[frozenset[str]] = UNDERSTOOD
    least_opset: ClassVar[int] = 23
    untrained_because: ClassVar[str] = "turns queries and keys by their positions behind the layers that make them"

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_understood(config, self.understood, family=self.display_name)
        check_sizes(config, _LARGEST_SIZES)
        check_epsilon(config, "rms_norm_eps")
        check_activation(config, "hidden_act", family=self.display_name)
        if config.num_attention_heads % config.num_key_value_heads:
            raise FormatError(
                "config.json: num_attention_heads must be a multiple of num_key_value_heads, "
                f"found {config.num_attention_heads} and {config.num_key_value_heads}"
            )
        if self._head_size % 2 or self._head_size < 2:
            raise FormatError(f"config.json: heads must have an even number of columns, found {self._head_size}")
        if self._rope_type not in _ROPE_TYPES:
            raise UnsupportedError(
                f"{self.display_name} with rotary positions of type {self._rope_type!r} is not supported, "
                f"only {', '.join(map(repr, _ROPE_TYPES))}"
            )

    @property
    def _head_size(self) -> int:
        config = self.config
        own = getattr(config, "head_dim", None)
        return int(own) if own is not None else config.hidden_size // config.num_attention_heads

    @property
    def _rope_type(self) -> str:
        values = getattr(self.config, "rope_parameters", None) or getattr(self.config, "rope_scaling", None) or {}
        return str(values.get("rope_type", values.get("type", "default")))

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        return CacheShape(self.config.num_hidden_layers, self.config.num_key_value_heads, self._head_size)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        return [*(f"{block}.{linear}" for block in self._blocks for linear in _LINEARS_OF_A_LAYER), HEAD]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [TABLE]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return {HEAD: TABLE} if self.config.tie_word_embeddings else {}

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return [TABLE, *self._blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """None: what attention sees is made behind the modules that distillation would read."""
        return ()

    @property
    def input_names(self) -> list[str]:
        """The ids, the mask of past and present tokens, the positions, and each layer's past key and value."""
        return ["input_ids", "attention_mask", "position_ids", *self.cache_names("past_key_values")]

    @property
    def output_names(self) -> list[str]:
        """The logits of every present token, and each layer's key and value with those of the present."""
        return ["logits", *self.cache_names("present")]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return int(self.config.max_position_embeddings)

    def export_module(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> nn.Module:
        """Wraps ``model`` with its cache as inputs and outputs; see :class:`CachedLlama`."""
        activation = ACTIVATIONS[self.config.hidden_act]
        return CachedLlama(
            model, positions=self.max_positions, cache=self.cache, activation=activation, cache_dtype=cache_dtype
        )

    @property
    def _blocks(self) -> list[str]:
        return [f"model.layers.{index}" for index in range(self.config.num_hidden_layers)]


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


class CachedLlama(nn.Module):
    """Llama on a cache that is passed in and out: what is exported, and the reference of all backends.

    The layers are those of the wrapped model; the order of operations is written out here, because the graph must not
    change with the version of ``transformers``.

    Args:
        model: A float or compressed ``LlamaForCausalLM``.
        positions: Longest text, for which angles are stored.
        cache: Size of the cache.
        activation: Activation of the gates.
        cache_dtype: Type of the cache: float16 or float32.
    """

    cosines: torch.Tensor
    sines: torch.Tensor

    def __init__(
        self, model: Any, *, positions: int, cache: CacheShape, activation: Activation, cache_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model = model
        self.cache = cache
        self.activation = activation
        self.cache_dtype = cache_dtype
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * model.model.rotary_emb.inv_freq.float()[None]
        factor = float(model.model.rotary_emb.attention_scaling)
        self.register_buffer("cosines", angles.cos() * factor, persistent=False)
        self.register_buffer("sines", angles.sin() * factor, persistent=False)

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
            past: Key and value of each layer in turn, ``[batch, key heads, past, head_size]`` in the cache's type.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then each layer's key and value with those of
            ``input_ids`` appended.
        """
        body: Any = self.model.model
        state = body.embed_tokens(input_ids)
        mask = causal_mask(attention_mask, past=past[0].shape[2], queries=input_ids.shape[1])
        present: list[torch.Tensor] = []
        for layer, key, value in zip(body.layers, past[::2], past[1::2], strict=True):
            normed = _divided(layer.input_layernorm, state)
            attended, key, value = self._attention(layer.self_attn, normed, (key, value), mask, position_ids)
            present += [key, value]
            state = state + attended
            normed = _divided(layer.post_attention_layernorm, state)
            gated = self.activation(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
            state = state + layer.mlp.down_proj(gated)
        return self.model.lm_head(_divided(body.norm, state)), *present

    def _attention(
        self,
        layer: Any,
        state: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        position_ids: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        size, key_heads = self.cache.head_size, self.cache.heads
        queries, keys, values = layer.q_proj(state), layer.k_proj(state), layer.v_proj(state)
        heads = queries.shape[-1] // size
        query = split_heads(self._turned(queries, heads, position_ids), heads)
        new_key = split_heads(self._turned(keys, key_heads, position_ids), key_heads)
        key = torch.cat([past[0], new_key.to(self.cache_dtype)], dim=2)
        value = torch.cat([past[1], split_heads(values, key_heads).to(self.cache_dtype)], dim=2)
        return layer.o_proj(attend(query, key, value, mask)), key, value

    def _turned(self, states: torch.Tensor, heads: int, position_ids: torch.Tensor) -> torch.Tensor:
        turned: torch.Tensor = torch.onnx.ops.rotary_embedding(
            states, self.cosines, self.sines, position_ids, num_heads=heads
        )
        return turned


def _divided(norm: Any, state: torch.Tensor) -> torch.Tensor:
    """RMSNorm, as one operator."""
    return functional.rms_norm(state, norm.weight.shape, norm.weight, norm.variance_epsilon)
