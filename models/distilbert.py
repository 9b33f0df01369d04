"""DistilBERT: BERT without token types and pooler, under names of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.models.activations import check_activation, exportable_activation
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.config_checks import check_heads, check_sizes
from edgeq.models.heads import Head, PositionalEncoder, check_head
from edgeq.models.stacks import AttentionTap, LayerStack, Migration
from edgeq.models.structure import with_modules_replaced
from edgeq.models.transformers_release import RELEASE, additive_mask
from edgeq.models.understood_keys import check_understood

_LINEARS_OF_A_LAYER = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
)
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "dim": 1 << 20,
    "n_layers": 1000,
    "n_heads": 1 << 20,
    "hidden_dim": 1 << 24,
    "max_position_embeddings": 1 << 31,
}
# How positions begin (what they are is stored), and how the head of the language model is made.
_OF_NO_EFFECT = ("sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings")
_UNDERSTOOD = frozenset({*_LARGEST_SIZES, *_OF_NO_EFFECT, "activation"})


class DistilBertAdapter(ModelAdapter):
    """``DistilBertModel``, with and without a head."""

    family: ClassVar[str] = "distilbert"
    architectures: ClassVar[dict[str, Task]] = {
        "DistilBertModel": "embed",
        "DistilBertForSequenceClassification": "classify",
        "DistilBertForTokenClassification": "tag",
        "DistilBertForQuestionAnswering": "answer",
        "DistilBertForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = {
        "embed": Head(),
        "classify": Head(("pre_classifier", "classifier")),
        "tag": Head(("classifier",)),
        "answer": Head(("qa_outputs",)),
        "fill": Head(("vocab_transform", "vocab_projector"), tied="vocab_projector"),
    }
    """What stands behind the body, by task."""

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        check_sizes(self.config, _LARGEST_SIZES)
        check_heads(self.config, width="dim", heads="n_heads")
        check_head(self.config, self.task)
        check_understood(self.config, _UNDERSTOOD, family="DistilBERT")
        check_activation(self.config, "activation", family="DistilBERT")

    @property
    def _prefix(self) -> str:
        return "" if self.architecture == "DistilBertModel" else "distilbert."

    @property
    def _blocks(self) -> list[str]:
        return [f"{self._prefix}transformer.layer.{index}" for index in range(self.config.n_layers)]

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        names = [f"{block}.{linear}" for block in self._blocks for linear in _LINEARS_OF_A_LAYER]
        return [*names, *self.heads[self.task].linears]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return self.heads[self.task].tied_names(f"{self._prefix}embeddings.word_embeddings", self.config)

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [f"{self._prefix}embeddings.{kind}_embeddings" for kind in ("word", "position")]

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return [f"{self._prefix}embeddings", *self._blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        tap = AttentionTap("self", "attention.q_lin", "attention.k_lin", self.config.n_heads)
        stack = LayerStack(
            name="encoder",
            blocks=f"{self._prefix}transformer.layer",
            depth=self.config.n_layers,
            depth_field="n_layers",
            width=self.config.dim,
            embedding=f"{self._prefix}embeddings",
            attentions=(tap,),
            migrations=(Migration("attention.v_lin", ("attention.out_lin",)),),
        )
        return (stack,)

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return int(self.config.max_position_embeddings)

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        exportable = with_modules_replaced(model, exportable_activation)
        return _PositionalDistilBert(exportable, task=self.task, body="distilbert")


class _PositionalDistilBert(PositionalEncoder):
    """DistilBERT, written out."""

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        del token_type_ids
        states = body.embeddings(input_ids)
        # transformers would expand the mask to sequence x sequence for every text.
        bias = additive_mask(attention_mask, states.dtype)
        if RELEASE < 5:
            layers = len(body.transformer.layer)
            result = body.transformer(x=states, attn_mask=bias, head_mask=[None] * layers, return_dict=True)[0]
        else:
            result = body.transformer(states, attention_mask=bias)[0]
        final: torch.Tensor = result
        return final

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        del attention_mask
        first = torch.relu(self.model.pre_classifier(states[:, 0]))
        logits: torch.Tensor = self.model.classifier(first)
        return logits

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        model = self.model
        hidden = model.activation(model.vocab_transform(states))
        logits: torch.Tensor = model.vocab_projector(model.vocab_layer_norm(hidden))
        return logits
