"""GPT-2: decoders that continue a text, with a cache of keys and values."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.errors import UnsupportedError
from edgeq.models.activations import ACTIVATIONS, Activation, check_activation
from edgeq.models.adapter import CacheShape, GenerativeAdapter, Task
from edgeq.models.cache import DEFAULT_CACHE_DTYPE, attend, causal_mask, split_heads
from edgeq.models.config_checks import check_epsilon, check_heads, check_sizes
from edgeq.models.stacks import AttentionTap, LayerStack, Migration
from edgeq.models.understood_keys import check_understood

HEAD = "lm_head"
TABLE = "transformer.wte"
_POSITIONS = "transformer.wpe"
_LINEARS_OF_A_LAYER = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "n_embd": 1 << 20,
    "n_layer": 1000,
    "n_head": 1 << 20,
    "n_positions": 1 << 31,
}
_UNDERSTOOD = frozenset(
    {*_LARGEST_SIZES, "n_inner", "n_ctx", "layer_norm_epsilon", "activation_function", "add_cross_attention"}
    | {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"}
    | {"reorder_and_upcast_attn"}  # the order of roundings, which is that of edgeq whatever it says
    # of heads that no architecture here has
    | {"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"}
)
"""Keys of ``config.json`` that are read or checked; ``n_ctx`` is an older name that nobody reads."""


class Gpt2Adapter(GenerativeAdapter):
    """``GPT2LMHeadModel``, DistilGPT2 included."""

    family: ClassVar[str] = "gpt2"
    architectures: ClassVar[dict[str, Task]] = {"GPT2LMHeadModel": "generate"}

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_sizes(config, _LARGEST_SIZES)
        if config.n_inner is not None:
            check_sizes(config, {"n_inner": 1 << 24})
        check_heads(config, width="n_embd", heads="n_head")
        check_epsilon(config, "layer_norm_epsilon")
        check_understood(config, _UNDERSTOOD, family="GPT-2")
        check_activation(config, "activation_function", family="GPT-2")
        if config.add_cross_attention:
            raise UnsupportedError("GPT-2 with cross-attention is not supported, only as a decoder alone")

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        config = self.config
        return CacheShape(config.n_layer, config.n_head, config.n_embd // config.n_head)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        return [*(f"{block}.{linear}" for block in self._blocks for linear in _LINEARS_OF_A_LAYER), HEAD]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [TABLE, _POSITIONS]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return {HEAD: TABLE} if self.config.tie_word_embeddings else {}

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return {_POSITIONS: "positions are added to the state that every layer adds to, and are few"}

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return [TABLE, *self._blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        tap = AttentionTap("self", "attn.c_attn", "attn.c_attn", self.config.n_head, causal=True, parts=3)
        stack = LayerStack(
            name="decoder",
            blocks="transformer.h",
            depth=self.config.n_layer,
            depth_field="n_layer",
            width=self.config.n_embd,
            embedding="transformer.drop",
            attentions=(tap,),
            migrations=(
                Migration("ln_1", ("attn.c_attn",)),
                Migration("attn.c_attn", ("attn.c_proj",), part=2, parts=3),
                Migration("ln_2", ("mlp.c_fc",)),
            ),
        )
        return (stack,)

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
        return int(self.config.n_positions)

    def export_module(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> nn.Module:
        """Wraps ``model`` with its cache as inputs and outputs; see :class:`CachedGpt2`."""
        activation = ACTIVATIONS[self.config.activation_function]
        heads = self.cache.heads
        return CachedGpt2(
            model, scales=self._scales, activation=activation, heads=heads, cache_dtype=cache_dtype
        )

    @property
    def _scales(self) -> list[float]:
        """What each layer multiplies its scores with."""
        scale = self.cache.head_size**-0.5 if self.config.scale_attn_weights else 1.0
        by_layer = self.config.scale_attn_by_inverse_layer_idx
        return [scale / (index + 1) if by_layer else scale for index in range(self.config.n_layer)]

    @property
    def _blocks(self) -> list[str]:
        return [f"transformer.h.{index}" for index in range(self.config.n_layer)]


class CachedGpt2(nn.Module):
    """GPT-2 on a cache that is passed in and out: what is exported, and the reference of all backends.

    The layers are those of the wrapped model; the order of operations is written out here, because the
    graph must not change with the version of ``transformers``.

    Args:
        model: A float or compressed ``GPT2LMHeadModel``.
        scales: Factor on the attention scores of each layer.
        activation: Activation of the feed-forward layers.
        heads: Attention heads.
        cache_dtype: Type of the cache: float16 or float32.
    """

    def __init__(
        self, model: nn.Module, *, scales: list[float], activation: Activation, heads: int, cache_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model = model
        self.scales = scales
        self.activation = activation
        self.cache_dtype = cache_dtype
        self.heads = heads

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
            past: Key and value of each layer in turn, ``[batch, heads, past, head_size]`` in the cache's type.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then each layer's key and value with those of
            ``input_ids`` appended.
        """
        body: Any = self.model.transformer
        state = body.wte(input_ids) + body.wpe(position_ids)
        mask = causal_mask(attention_mask, past=past[0].shape[2], queries=input_ids.shape[1])
        present: list[torch.Tensor] = []
        for block, key, value, scale in zip(body.h, past[::2], past[1::2], self.scales, strict=True):
            attended, key, value = self._attention(block.attn, block.ln_1(state), (key, value), mask, scale)
            present += [key, value]
            state = state + attended
            hidden = _project(block.mlp.c_fc, block.ln_2(state))
            state = state + _project(block.mlp.c_proj, self.activation(hidden))
        return _project(self.model.lm_head, body.ln_f(state)), *present

    def _attention(
        self,
        layer: Any,
        state: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, new_key, new_value = (
            split_heads(part, self.heads) for part in _project(layer.c_attn, state).chunk(3, dim=-1)
        )
        key = torch.cat([past[0], new_key.to(self.cache_dtype)], dim=2)
        value = torch.cat([past[1], new_value.to(self.cache_dtype)], dim=2)
        return _project(layer.c_proj, attend(query, key, value, mask, scale=scale)), key, value


def _project(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Runs a packed layer, or a float one as one product; ``Conv1D`` itself folds batch and sequence."""
    if isinstance(layer, Conv1D):
        return x @ layer.weight + layer.bias
    result: torch.Tensor = layer(x)
    return result
