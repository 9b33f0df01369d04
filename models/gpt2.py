"""GPT-2: decoders that continue a text, with learned positions, and queries, keys and values of one matmul."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.errors import UnsupportedError
from edgeq.models.activations import Activation
from edgeq.models.adapter import CacheShape, Task
from edgeq.models.config_checks import check_epsilon, check_heads, check_sizes
from edgeq.models.decoder import CachedDecoder, DecoderAdapter, Memory
from edgeq.models.stacks import AttentionTap, Migration


class Gpt2Adapter(DecoderAdapter):
    """``GPT2LMHeadModel``, DistilGPT2 included."""

    family: ClassVar[str] = "gpt2"
    display_name: ClassVar[str] = "GPT-2"
    architectures: ClassVar[dict[str, Task]] = {"GPT2LMHeadModel": "generate"}
    table: ClassVar[str] = "transformer.wte"
    positions_table: ClassVar[str | None] = "transformer.wpe"
    blocks: ClassVar[str] = "transformer.h"
    linears_of_a_block: ClassVar[tuple[str, ...]] = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    first_state: ClassVar[str | None] = "transformer.drop"
    depth_field: ClassVar[str] = "n_layer"
    width_field: ClassVar[str] = "n_embd"
    positions_field: ClassVar[str] = "n_positions"
    activation_field: ClassVar[str] = "activation_function"
    largest_sizes: ClassVar[dict[str, int]] = {
        "vocab_size": 1 << 31,
        "n_embd": 1 << 20,
        "n_layer": 1000,
        "n_head": 1 << 20,
        "n_positions": 1 << 31,
    }
    understood: ClassVar[frozenset[str]] = frozenset(
        {"n_inner", "n_ctx", "layer_norm_epsilon", "activation_function", "add_cross_attention"}
        | {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings"}
        | {"reorder_and_upcast_attn"}  # the order of roundings, which is that of edgeq whatever it says
        # of heads that no architecture here has
        | {"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"}
    )
    """``n_ctx`` is an older name that nobody reads."""

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        if config.n_inner is not None:
            check_sizes(config, {"n_inner": 1 << 24})
        check_heads(config, width="n_embd", heads="n_head")
        check_epsilon(config, "layer_norm_epsilon")
        if config.add_cross_attention:
            raise UnsupportedError("GPT-2 with cross-attention is not supported, only as a decoder alone")

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        config = self.config
        return CacheShape(config.n_layer, config.n_head, config.n_embd // config.n_head)

    @property
    def taps(self) -> tuple[AttentionTap, ...]:
        """See :attr:`DecoderAdapter.taps`."""
        return (AttentionTap("self", "attn.c_attn", "attn.c_attn", self.config.n_head, causal=True, parts=3),)

    @property
    def migrations(self) -> list[Migration]:
        """See :attr:`ModelAdapter.migrations`."""
        moves = [
            Migration("ln_1", ("attn.c_attn",)),
            Migration("attn.c_attn", ("attn.c_proj",), part=2, parts=3),
            Migration("ln_2", ("mlp.c_fc",)),
        ]
        return [move.inside(block) for block in self.block_names for move in moves]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`GenerativeAdapter.export_module`."""
        return CachedGpt2(model, activation=self.activation, scales=self._scales)

    @property
    def _scales(self) -> list[float]:
        """What each layer multiplies its scores with."""
        scale = self.cache.head_size**-0.5 if self.config.scale_attn_weights else 1.0
        by_layer = self.config.scale_attn_by_inverse_layer_idx
        return [scale / (index + 1) if by_layer else scale for index in range(self.depth)]


class CachedGpt2(CachedDecoder):
    """GPT-2 on a cache; see :class:`CachedDecoder`.

    Args:
        model: A float or compressed ``GPT2LMHeadModel``.
        activation: Activation of the feed-forward layers.
        scales: Factor on the attention scores of each layer.
    """

    def __init__(self, model: nn.Module, *, activation: Activation, scales: list[float]) -> None:
        super().__init__(model, activation=activation)
        self.scales = scales

    @property
    def blocks(self) -> Iterable[Any]:
        """See :attr:`CachedDecoder.blocks`; each with its scale."""
        body: Any = self.model.transformer
        return zip(body.h, self.scales, strict=True)

    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.embed`."""
        body: Any = self.model.transformer
        state: torch.Tensor = body.wte(input_ids) + body.wpe(position_ids)
        return state

    def block(self, block: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        """See :meth:`CachedDecoder.block`."""
        layers, scale = block
        query, key, value = _project(layers.attn.c_attn, layers.ln_1(state)).chunk(3, dim=-1)
        state = state + _project(layers.attn.c_proj, memory.attend(query, key, value, scale=scale))
        hidden = _project(layers.mlp.c_fc, layers.ln_2(state))
        return state + _project(layers.mlp.c_proj, self.activation(hidden))

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.logits`."""
        model: Any = self.model
        return _project(model.lm_head, model.transformer.ln_f(state))


def _project(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Runs a packed layer, or a float one as one matmul; ``Conv1D`` itself folds batch and sequence."""
    if isinstance(layer, Conv1D):
        return x @ layer.weight + layer.bias
    result: torch.Tensor = layer(x)
    return result
