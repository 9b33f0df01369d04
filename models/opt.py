"""OPT: decoders with learned positions and separate queries, keys and values."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import UnsupportedError
from edgeq.models.activations import ACTIVATIONS, Activation, check_activation
from edgeq.models.adapter import CacheShape, GenerativeAdapter, Task
from edgeq.models.cache import DEFAULT_CACHE_DTYPE, attend, causal_mask, split_heads
from edgeq.models.config_checks import check_heads, check_sizes
from edgeq.models.stacks import LayerStack
from edgeq.models.understood_keys import check_understood

HEAD = "lm_head"
TABLE = "model.decoder.embed_tokens"
_POSITIONS = "model.decoder.embed_positions"
_LINEARS_OF_A_LAYER = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    *("fc1", "fc2"),
)
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "ffn_dim": 1 << 24,
    "max_position_embeddings": 1 << 31,
    "word_embed_proj_dim": 1 << 20,
}
_UNDERSTOOD = frozenset(
    {*_LARGEST_SIZES, "activation_function", "do_layer_norm_before", "_remove_final_layer_norm", "enable_bias"}
    | {"layer_norm_elementwise_affine", "tie_word_embeddings"}
)


class OptAdapter(GenerativeAdapter):
    """``OPTForCausalLM``."""

    family: ClassVar[str] = "opt"
    architectures: ClassVar[dict[str, Task]] = {"OPTForCausalLM": "generate"}
    untrained_because: ClassVar[str] = "has no module whose output is what its first layer reads"

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_understood(config, _UNDERSTOOD, family="OPT")
        check_sizes(config, _LARGEST_SIZES)
        check_heads(config, width="hidden_size", heads="num_attention_heads")
        check_activation(config, "activation_function", family="OPT")
        if not config.layer_norm_elementwise_affine:
            raise UnsupportedError(
                "OPT with norms without weights (layer_norm_elementwise_affine in config.json) is not supported"
            )

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        config = self.config
        heads = config.num_attention_heads
        return CacheShape(config.num_hidden_layers, heads, config.hidden_size // heads)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        is_narrow = self.config.word_embed_proj_dim != self.config.hidden_size
        first, last = (["model.decoder.project_in"], ["model.decoder.project_out"]) if is_narrow else ([], [])
        blocks = [f"{block}.{linear}" for block in self._blocks for linear in _LINEARS_OF_A_LAYER]
        return [*first, *blocks, *last, HEAD]

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
        """None: the sum of token and position, which the first block reads, is no module's output."""
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
        """See :attr:`ModelAdapter.max_positions`; the table has two rows more, which are not used."""
        return int(self.config.max_position_embeddings)

    def export_module(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> nn.Module:
        """Wraps ``model`` with its cache as inputs and outputs; see :class:`CachedOpt`."""
        activation = ACTIVATIONS[self.config.activation_function]
        before = bool(self.config.do_layer_norm_before)
        return CachedOpt(
            model, activation=activation, norms_before=before, heads=self.cache.heads, cache_dtype=cache_dtype
        )

    @property
    def _blocks(self) -> list[str]:
        return [f"model.decoder.layers.{index}" for index in range(self.config.num_hidden_layers)]


class CachedOpt(nn.Module):
    """OPT on a cache that is passed in and out: what is exported, and the reference of all backends.

    Args:
        model: A float or compressed ``OPTForCausalLM``.
        activation: Activation of the feed-forward layers.
        norms_before: Whether a block normalises what it reads, or the sum behind it.
        heads: Attention heads.
        cache_dtype: Type of the cache: float16 or float32.
    """

    def __init__(
        self, model: nn.Module, *, activation: Activation, norms_before: bool, heads: int, cache_dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model = model
        self.activation = activation
        self.norms_before = norms_before
        self.heads = heads
        self.cache_dtype = cache_dtype

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """Reads tokens after a past that may be empty; arguments and results are those of :class:`CachedGpt2`."""
        model: Any = self.model
        body: Any = model.model.decoder
        state = body.embed_tokens(input_ids)
        if body.project_in is not None:
            state = body.project_in(state)
        table = body.embed_positions
        state = state + functional.embedding(position_ids + table.offset, table.weight)
        mask = causal_mask(attention_mask, past=past[0].shape[2], queries=input_ids.shape[1])
        present: list[torch.Tensor] = []
        for layer, key, value in zip(body.layers, past[::2], past[1::2], strict=True):
            read = layer.self_attn_layer_norm(state) if self.norms_before else state
            attended, key, value = self._attention(layer.self_attn, read, (key, value), mask)
            present += [key, value]
            state = state + attended
            if not self.norms_before:
                state = layer.self_attn_layer_norm(state)
            read = layer.final_layer_norm(state) if self.norms_before else state
            state = state + layer.fc2(self.activation(layer.fc1(read)))
            if not self.norms_before:
                state = layer.final_layer_norm(state)
        if body.final_layer_norm is not None:
            state = body.final_layer_norm(state)
        if body.project_out is not None:
            state = body.project_out(state)
        return model.lm_head(state), *present

    def _attention(
        self, layer: Any, state: torch.Tensor, past: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, new_key, new_value = (
            split_heads(part(state), self.heads) for part in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        key = torch.cat([past[0], new_key.to(self.cache_dtype)], dim=2)
        value = torch.cat([past[1], new_value.to(self.cache_dtype)], dim=2)
        return layer.out_proj(attend(query, key, value, mask)), key, value
