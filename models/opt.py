"""OPT: decoders with learned positions and separate queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import UnsupportedError
from edgeq.models.activations import Activation
from edgeq.models.adapter import CacheShape, Task
from edgeq.models.config_checks import check_heads
from edgeq.models.decoder import CachedDecoder, DecoderAdapter, Memory
from edgeq.models.stacks import Migration


class OptAdapter(DecoderAdapter):
    """``OPTForCausalLM``; its table of positions has two rows more than positions, which are not used."""

    family: ClassVar[str] = "opt"
    display_name: ClassVar[str] = "OPT"
    architectures: ClassVar[dict[str, Task]] = {"OPTForCausalLM": "generate"}
    untrained_because: ClassVar[str] = "has no module whose output is what its first layer reads"
    table: ClassVar[str] = "model.decoder.embed_tokens"
    positions_table: ClassVar[str | None] = "model.decoder.embed_positions"
    blocks: ClassVar[str] = "model.decoder.layers"
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        *("fc1", "fc2"),
    )
    activation_field: ClassVar[str] = "activation_function"
    largest_sizes: ClassVar[dict[str, int]] = {
        "vocab_size": 1 << 31,
        "hidden_size": 1 << 20,
        "num_hidden_layers": 1000,
        "num_attention_heads": 1 << 20,
        "ffn_dim": 1 << 24,
        "max_position_embeddings": 1 << 31,
        "word_embed_proj_dim": 1 << 20,
    }
    understood: ClassVar[frozenset[str]] = frozenset(
        {"activation_function", "do_layer_norm_before", "_remove_final_layer_norm", "enable_bias"}
        | {"layer_norm_elementwise_affine", "tie_word_embeddings"}
    )

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        check_heads(self.config, width="hidden_size", heads="num_attention_heads")
        if not self.config.layer_norm_elementwise_affine:
            raise UnsupportedError(
                "OPT with norms without weights (layer_norm_elementwise_affine in config.json) is not supported"
            )

    @property
    def cache(self) -> CacheShape:
        """See :attr:`GenerativeAdapter.cache`."""
        heads = self.config.num_attention_heads
        return CacheShape(self.depth, heads, self.config.hidden_size // heads)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        *blocks, head = super().linear_names
        if self.config.word_embed_proj_dim == self.config.hidden_size:
            return [*blocks, head]
        return ["model.decoder.project_in", *blocks, "model.decoder.project_out", head]

    @property
    def migrations(self) -> list[Migration]:
        """See :attr:`ModelAdapter.migrations`; norms behind a sum are read by the next sum as well."""
        moves = [Migration("self_attn.v_proj", ("self_attn.out_proj",))]
        if self.config.do_layer_norm_before:
            queries = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
            moves = [Migration("self_attn_layer_norm", queries), *moves, Migration("final_layer_norm", ("fc1",))]
        if self.config.activation_function == "relu":  # a positive factor passes through it
            moves.append(Migration("fc1", ("fc2",)))
        return [move.inside(block) for block in self.block_names for move in moves]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`GenerativeAdapter.export_module`."""
        return CachedOpt(model, activation=self.activation, norms_before=bool(self.config.do_layer_norm_before))


class CachedOpt(CachedDecoder):
    """OPT on a cache; see :class:`CachedDecoder`.

    Args:
        model: A float or compressed ``OPTForCausalLM``.
        activation: Activation of the feed-forward layers.
        norms_before: Whether a block normalises what it reads, or the sum behind it.
    """

    def __init__(self, model: nn.Module, *, activation: Activation, norms_before: bool) -> None:
        super().__init__(model, activation=activation)
        self.norms_before = norms_before

    @property
    def _body(self) -> Any:
        model: Any = self.model
        return model.model.decoder

    @property
    def blocks(self) -> Iterable[Any]:
        """See :attr:`CachedDecoder.blocks`."""
        layers: Iterable[Any] = self._body.layers
        return layers

    def embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.embed`."""
        body = self._body
        state: torch.Tensor = body.embed_tokens(input_ids)
        if body.project_in is not None:
            state = body.project_in(state)
        table = body.embed_positions
        return state + functional.embedding(position_ids + table.offset, table.weight)

    def block(self, block: Any, state: torch.Tensor, memory: Memory) -> torch.Tensor:
        """See :meth:`CachedDecoder.block`."""
        layer = block.self_attn
        read = block.self_attn_layer_norm(state) if self.norms_before else state
        attended = memory.attend(layer.q_proj(read), layer.k_proj(read), layer.v_proj(read))
        state = state + layer.out_proj(attended)
        if not self.norms_before:
            state = block.self_attn_layer_norm(state)
        read = block.final_layer_norm(state) if self.norms_before else state
        state = state + block.fc2(self.activation(block.fc1(read)))
        return state if self.norms_before else block.final_layer_norm(state)

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """See :meth:`CachedDecoder.logits`."""
        model: Any = self.model
        if self._body.final_layer_norm is not None:
            state = self._body.final_layer_norm(state)
        if self._body.project_out is not None:
            state = self._body.project_out(state)
        result: torch.Tensor = model.lm_head(state)
        return result
