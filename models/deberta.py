"""DeBERTa, versions 2 and 3: each score is a sum of what two tokens say to each other, and to each other's distance.

He et al., "DeBERTa: Decoding-enhanced BERT with disentangled attention" (2021), equation 4, with distances in buckets
that widen with the logarithm (version 2). Positions go through layers as tokens do; each query is multiplied with all
of them, and so is each key, and the scores of the pairs are picked from the results.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers.models.deberta_v2 import modeling_deberta_v2

from edgeq.errors import UnsupportedError
from edgeq.models.activations import ACTIVATIONS, check_activation, exportable_activation
from edgeq.models.adapter import Task
from edgeq.models.bert import BertAdapter
from edgeq.models.cache import additive, merge_heads, split_heads
from edgeq.models.config_checks import check_sizes
from edgeq.models.distances import Distances
from edgeq.models.heads import Head, PositionalEncoder
from edgeq.models.self_attention import picked
from edgeq.models.stacks import LayerStack
from edgeq.models.structure import with_modules_replaced

_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
_TO_POSITION, _FROM_POSITION = "c2p", "p2c"
"""Names of the two terms: a query to the key's distance, and a key to the query's."""
_POSITIONS = "encoder.rel_embeddings"


class DebertaV2Adapter(BertAdapter):
    """``DebertaV2Model``, with and without a head: DeBERTa-v2 and DeBERTa-v3."""

    family: ClassVar[str] = "deberta-v2"
    display_name: ClassVar[str] = "DeBERTa"
    body_name: ClassVar[str] = "deberta"
    architectures: ClassVar[dict[str, Task]] = {
        "DebertaV2Model": "embed",
        "DebertaV2ForSequenceClassification": "classify",
        "DebertaV2ForTokenClassification": "tag",
        "DebertaV2ForQuestionAnswering": "answer",
        "DebertaV2ForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = BertAdapter.heads | {
        "embed": Head(),
        "classify": Head(("pooler.dense", "classifier")),
    }
    largest_sizes: ClassVar[dict[str, int]] = _SIZES
    understood: ClassVar[frozenset[str]] = frozenset(
        {*_SIZES, "type_vocab_size", "embedding_size", "hidden_act", "layer_norm_eps", "tie_word_embeddings"}
        | {"relative_attention", "max_relative_positions", "position_buckets", "norm_rel_ebd", "share_att_key"}
        | {"pos_att_type", "position_biased_input", "conv_kernel_size", "pooler_hidden_size", "pooler_hidden_act"}
        | {"pooler_dropout", "cls_dropout", "legacy"}  # of training, and of a head that no architecture here has
        | {"conv_act", "conv_groups"}  # of a convolution, which is refused
    )
    without_effect: ClassVar[dict[str, object]] = {}
    unread_because: ClassVar[str] = "adds to its scores what tokens say to positions"
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    )

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        check_sizes(config, {name: 1 << 20 for name in ("embedding_size",) if hasattr(config, name)})
        if config.type_vocab_size:
            check_sizes(config, {"type_vocab_size": 1 << 31})
        if unknown := set(self._terms) - {_TO_POSITION, _FROM_POSITION}:
            raise UnsupportedError(
                f"DeBERTa with pos_att_type {', '.join(sorted(map(repr, unknown)))} is not supported, only "
                f"{_TO_POSITION!r} and {_FROM_POSITION!r}"
            )
        if getattr(config, "conv_kernel_size", 0):
            raise UnsupportedError("DeBERTa with a convolution (conv_kernel_size in config.json) is not supported")
        if self.task == "fill" and not config.legacy:
            raise UnsupportedError("DeBERTa with the newer head for masks (legacy in config.json) is not supported")
        if self.task == "classify":
            check_activation(config, "pooler_hidden_act", family=self.display_name)
            if config.pooler_hidden_size != config.hidden_size:
                raise UnsupportedError(
                    f"DeBERTa with a pooler of width {config.pooler_hidden_size} (pooler_hidden_size in config.json) "
                    f"is not supported, only of the states' width {config.hidden_size}"
                )

    @property
    def _terms(self) -> list[str]:
        return list(self.config.pos_att_type or [])

    @property
    def _span(self) -> int:
        """Distances that are told apart to either side; 0 where none are."""
        config = self.config
        if not config.relative_attention:
            return 0
        buckets = getattr(config, "position_buckets", -1)
        return buckets if buckets > 0 else self._farthest

    @property
    def _farthest(self) -> int:
        farthest = self.config.max_relative_positions
        return farthest if farthest >= 1 else self.max_positions

    @property
    def block_linear_names(self) -> list[str]:
        """See :attr:`BertAdapter.block_linear_names`; positions have layers of their own unless they are shared."""
        if not self._span or getattr(self.config, "share_att_key", False):
            return super().block_linear_names
        own = {_TO_POSITION: "attention.self.pos_key_proj", _FROM_POSITION: "attention.self.pos_query_proj"}
        positions = [name for term, name in own.items() if term in self._terms]
        first, rest = self.linears_of_a_block[:3], self.linears_of_a_block[3:]
        return [f"{block}.{name}" for block in self.layer_names[1:] for name in (*first, *positions, *rest)]

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        is_narrow = getattr(self.config, "embedding_size", self.config.hidden_size) != self.config.hidden_size
        first = [f"{self._prefix}embeddings.embed_proj"] if is_narrow else []
        return [*first, *super().linear_names]

    @property
    def optional_modules(self) -> list[str]:
        """None: there is no pooler without a head."""
        return []

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        kinds = ["word"]
        kinds += ["position"] if self.config.position_biased_input else []
        kinds += ["token_type"] if self.config.type_vocab_size else []
        return [*(f"{self._prefix}embeddings.{kind}_embeddings" for kind in kinds), *self.float_names]

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return {f"{self._prefix}{_POSITIONS}": "each layer reads all distances, which are few"} if self._span else {}

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        return tuple(dataclasses.replace(stack, attentions=()) for stack in super().stacks)

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask", *(["token_type_ids"] if self.config.type_vocab_size else [])]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        attention = Disentangled(
            heads=self.config.num_attention_heads,
            terms=self._terms,
            span=self._span,
            shared=bool(getattr(self.config, "share_att_key", False)),
            distances=self._distances() if self._span else None,
        )
        return _PositionalDeberta(
            with_modules_replaced(model, exportable_activation),
            task=self.task,
            body=self.body_name,
            attention=attention,
            pooler_act=self.config.pooler_hidden_act,
        )

    def _distances(self) -> Distances:
        """The bucket of each distance, counted from the query's place back to the key's."""
        buckets = torch.arange(1 - self.max_positions, self.max_positions)
        if (size := getattr(self.config, "position_buckets", -1)) > 0:
            buckets = modeling_deberta_v2.make_log_bucket_position(buckets, size, self._farthest).to(torch.int64)
        return Distances(self.max_positions, buckets)


class Disentangled(nn.Module):
    """The attention of all layers.

    Args:
        heads: Attention heads.
        terms: Which terms are added to the scores.
        span: Distances to either side; 0 where positions are no part of the scores.
        shared: Whether positions go through the layers of queries and keys.
        distances: The bucket of each distance.
    """

    def __init__(
        self, *, heads: int, terms: list[str], span: int, shared: bool, distances: Distances | None
    ) -> None:
        super().__init__()
        self.heads, self.terms, self.span, self.shared = heads, terms, span, shared
        self.distances = distances

    def columns(self, length: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Returns for each pair of places the column of its two terms, int64 ``[length, length]``; None without."""
        if self.distances is None:
            return None
        buckets, last = self.distances(length), 2 * self.span - 1
        return (buckets + self.span).clamp(0, last), (self.span - buckets).clamp(0, last)

    def forward(
        self,
        layer: Any,
        state: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor | None,
        columns: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Attends.

        Args:
            layer: The ``DisentangledSelfAttention`` of a block.
            state: float32, ``[batch, sequence, width]``.
            mask: float32, added to the scores.
            positions: What each column of a term stands for, float32 ``[1, 2 * span, width]``; None without positions.
            columns: What :meth:`columns` returned.

        Returns:
            float32, ``[batch, sequence, width]``.
        """
        query, key, value = (
            split_heads(part(state), self.heads) for part in (layer.query_proj, layer.key_proj, layer.value_proj)
        )
        scale = (query.shape[-1] * (1 + len(set(self.terms)))) ** -0.5
        if positions is not None and columns is not None and self.terms:
            mask = self._position_scores(layer, query * scale, key * scale, positions, columns) + mask
        return merge_heads(functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale))

    def _position_scores(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        positions: torch.Tensor,
        columns: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        scores = []
        if _TO_POSITION in self.terms:
            own = (layer.key_proj if self.shared else layer.pos_key_proj)(positions)
            scores.append(picked(query @ split_heads(own, self.heads).transpose(2, 3), columns[0]))
        if _FROM_POSITION in self.terms:
            own = (layer.query_proj if self.shared else layer.pos_query_proj)(positions)
            scores.append(picked(key @ split_heads(own, self.heads).transpose(2, 3), columns[1]).transpose(2, 3))
        return scores[0] if len(scores) == 1 else scores[0] + scores[1]


class _PositionalDeberta(PositionalEncoder):
    """DeBERTa, written out.

    Args:
        model: A float or compressed model.
        task: What it is for.
        body: Name of the body within the model.
        attention: The attention of all layers.
        pooler_act: Activation of the head for texts.
    """

    def __init__(self, model: Any, *, task: str, body: str, attention: Disentangled, pooler_act: str) -> None:
        super().__init__(model, task=task, body=body)
        self.attention = attention
        self.pooler_act = pooler_act

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """See :meth:`PositionalEncoder.states`."""
        tokens = attention_mask.bool()
        state = self._embed(body.embeddings, input_ids, tokens, token_type_ids)
        # A padding token sees all tokens alike, as in transformers.
        mask = additive(tokens[:, None, :, None] & tokens[:, None, None, :])
        positions, columns = self._positions(body.encoder), self.attention.columns(input_ids.shape[1])
        for layer in body.encoder.layer:
            attended = self.attention(layer.attention.self, state, mask, positions, columns)
            state = layer.attention.output.LayerNorm(layer.attention.output.dense(attended) + state)
            hidden = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(state))
            state = layer.output.LayerNorm(layer.output.dense(hidden) + state)
        return state

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.text_logits`."""
        del attention_mask
        pooled = ACTIVATIONS[self.pooler_act](self.model.pooler.dense(states[:, 0]))
        logits: torch.Tensor = self.model.classifier(pooled)
        return logits

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.word_logits`."""
        logits: torch.Tensor = self.model.cls(states)
        return logits

    def _embed(
        self, embeddings: Any, input_ids: torch.Tensor, tokens: torch.Tensor, types: torch.Tensor | None
    ) -> torch.Tensor:
        state = embeddings.word_embeddings(input_ids)
        if embeddings.position_embeddings is not None:
            state = state + embeddings.position_embeddings(embeddings.position_ids[:, : input_ids.shape[1]])
        if types is not None:
            state = state + embeddings.token_type_embeddings(types)
        if embeddings.embed_proj is not None:
            state = embeddings.embed_proj(state)
        return torch.where(tokens[:, :, None], embeddings.LayerNorm(state), 0.0)

    def _positions(self, encoder: Any) -> torch.Tensor | None:
        """What the columns of the terms stand for, float32 ``[1, 2 * span, width]``."""
        if not self.attention.span:
            return None
        positions: torch.Tensor = encoder.rel_embeddings.weight[None]
        return encoder.LayerNorm(positions) if hasattr(encoder, "LayerNorm") else positions
