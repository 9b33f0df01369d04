"""MPNet: BERT's layers, positions like RoBERTa's, and a bias on scores by distance that all layers share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.activations import exportable_activation
from edgeq.models.adapter import Task
from edgeq.models.bert import BertAdapter
from edgeq.models.cache import attend, padding_mask, split_heads
from edgeq.models.distances import Distances
from edgeq.models.heads import Head, PositionalEncoder
from edgeq.models.roberta import RobertaAdapter
from edgeq.models.structure import with_modules_replaced

_PADDING = 1
"""Token that positions are not counted over, whatever ``pad_token_id`` says; positions begin in the row behind it."""
_BUCKETS = 32
"""Rows of the table of biases that transformers uses."""
_BIAS = "encoder.relative_attention_bias"
_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "relative_attention_num_buckets": 1 << 20,
}


class MpnetAdapter(BertAdapter):
    """``MPNetModel`` (all-mpnet-base-v2), with and without a head."""

    family: ClassVar[str] = "mpnet"
    display_name: ClassVar[str] = "MPNet"
    body_name: ClassVar[str] = "mpnet"
    architectures: ClassVar[dict[str, Task]] = {
        "MPNetModel": "embed",
        "MPNetForSequenceClassification": "classify",
        "MPNetForTokenClassification": "tag",
        "MPNetForQuestionAnswering": "answer",
        "MPNetForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = RobertaAdapter.heads
    largest_sizes: ClassVar[dict[str, int]] = _SIZES
    understood: ClassVar[frozenset[str]] = frozenset(
        {*_SIZES, "hidden_act", "layer_norm_eps", "add_pooling_layer", "tie_word_embeddings"}
    )
    without_effect: ClassVar[dict[str, object]] = {}
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        *("intermediate.dense", "output.dense"),
    )
    tables: ClassVar[tuple[str, ...]] = ("word", "position")

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        if config.max_position_embeddings < _PADDING + 2:
            raise FormatError(
                f"config.json: max_position_embeddings must be at least {_PADDING + 2}, "
                f"found {config.max_position_embeddings}"
            )
        if config.relative_attention_num_buckets < _BUCKETS:
            raise UnsupportedError(
                f"MPNet with {config.relative_attention_num_buckets} biases (relative_attention_num_buckets) is not "
                f"supported: transformers looks up {_BUCKETS}"
            )

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [*super().embedding_names, f"{self._prefix}{_BIAS}"]

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return {f"{self._prefix}{_BIAS}": "the biases are added to every score, and are few"}

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`: the table's first rows, up to the padding's, are not used."""
        return int(self.config.max_position_embeddings) - _PADDING - 1

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        return _PositionalMpnet(
            with_modules_replaced(model, exportable_activation),
            task=self.task,
            body=self.body_name,
            heads=self.config.num_attention_heads,
            longest=self.max_positions,
        )


class _PositionalMpnet(PositionalEncoder):
    """MPNet, written out.

    Args:
        model: A float or compressed model.
        task: What it is for.
        body: Name of the body within the model.
        heads: Attention heads.
        longest: Longest text, in tokens.
    """

    def __init__(self, model: Any, *, task: str, body: str, heads: int, longest: int) -> None:
        super().__init__(model, task=task, body=body)
        self.heads = heads
        encoder = (model if task == "embed" else getattr(model, body)).encoder
        # transformers counts from the query to the key.
        buckets = encoder.relative_position_bucket(-torch.arange(1 - longest, longest), num_buckets=_BUCKETS)
        self.buckets = Distances(longest, buckets)

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """See :meth:`PositionalEncoder.states`; there are no token types."""
        del token_type_ids
        state = self._embed(body.embeddings, input_ids)
        mask = self._bias(body.encoder, length=input_ids.shape[1]) + padding_mask(attention_mask)
        for layer in body.encoder.layer:
            state = self._layer(layer, state, mask)
        return state

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.text_logits`."""
        del attention_mask
        head = self.model.classifier
        logits: torch.Tensor = head.out_proj(torch.tanh(head.dense(states[:, 0])))
        return logits

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.word_logits`."""
        head = self.model.lm_head
        logits: torch.Tensor = head.decoder(head.layer_norm(functional.gelu(head.dense(states))))
        return logits

    def _embed(self, embeddings: Any, input_ids: torch.Tensor) -> torch.Tensor:
        counted = (input_ids != _PADDING).to(torch.int64)
        positions = counted.cumsum(dim=1) * counted + _PADDING
        state = embeddings.word_embeddings(input_ids) + embeddings.position_embeddings(positions)
        normed: torch.Tensor = embeddings.LayerNorm(state)
        return normed

    def _bias(self, encoder: Any, *, length: int) -> torch.Tensor:
        """Returns what is added to the scores by distance, float32 ``[1, heads, length, length]``."""
        bias: torch.Tensor = encoder.relative_attention_bias(self.buckets(length))
        return bias.permute(2, 0, 1)[None]

    def _layer(self, layer: Any, state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        attention = layer.attention.attn
        query, key, value = (
            split_heads(part(state), self.heads) for part in (attention.q, attention.k, attention.v)
        )
        state = layer.attention.LayerNorm(attention.o(attend(query, key, value, mask)) + state)
        hidden = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(state))
        result: torch.Tensor = layer.output.LayerNorm(layer.output.dense(hidden) + state)
        return result
