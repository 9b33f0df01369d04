"""DistilBERT: BERT without token types and pooler, under names of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.models.activations import check_activation, exportable_activation
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.config_checks import check_heads, check_labels, check_sizes
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
# How positions begin (what they are is stored), and how the head of the language model is made, which is left out.
_OF_NO_EFFECT = ("sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings")
_UNDERSTOOD = frozenset({*_LARGEST_SIZES, *_OF_NO_EFFECT, "activation"})


class DistilBertAdapter(ModelAdapter):
    """``DistilBertModel`` and ``DistilBertForSequenceClassification``."""

    family: ClassVar[str] = "distilbert"
    architectures: ClassVar[dict[str, Task]] = {
        "DistilBertModel": "embed",
        "DistilBertForSequenceClassification": "classify",
    }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        check_sizes(self.config, _LARGEST_SIZES)
        check_heads(self.config, width="dim", heads="n_heads")
        if self.task == "classify":
            check_labels(self.config)
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
        return [*names, "pre_classifier", "classifier"] if self.task == "classify" else names

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
    def output_names(self) -> list[str]:
        """See :attr:`ModelAdapter.output_names`."""
        return ["logits" if self.task == "classify" else "last_hidden_state"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return int(self.config.max_position_embeddings)

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        exportable = with_modules_replaced(model, exportable_activation)
        return _PositionalDistilBert(exportable, classifies=self.task == "classify")


class _PositionalDistilBert(nn.Module):
    """DistilBERT with positional inputs and one tensor as output."""

    def __init__(self, model: Any, *, classifies: bool) -> None:
        super().__init__()
        self.model = model
        self.classifies = classifies

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        base = self.model.distilbert if self.classifies else self.model
        states = base.embeddings(input_ids)
        # transformers would expand the mask to sequence x sequence for every text.
        bias = additive_mask(attention_mask, states.dtype)
        if RELEASE < 5:
            layers = len(base.transformer.layer)
            states = base.transformer(x=states, attn_mask=bias, head_mask=[None] * layers, return_dict=True)[0]
        else:
            states = base.transformer(states, attention_mask=bias)[0]
        if not self.classifies:
            return states
        first = torch.relu(self.model.pre_classifier(states[:, 0]))
        logits: torch.Tensor = self.model.classifier(first)
        return logits
