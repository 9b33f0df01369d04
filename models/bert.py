"""BERT: encoders for sentence embeddings, and sequence classifiers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.config_checks import check_epsilon, check_heads, check_labels, check_sizes
from edgeq.models.stacks import AttentionTap, LayerStack

_LINEARS_OF_A_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 31,
    "type_vocab_size": 1 << 31,
}


class BertAdapter(ModelAdapter):
    """``BertModel`` and ``BertForSequenceClassification`` with absolute positions."""

    family: ClassVar[str] = "bert"
    display_name: ClassVar[str] = "BERT"
    architectures: ClassVar[dict[str, Task]] = {
        "BertModel": "embed",
        "BertForSequenceClassification": "classify",
    }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_sizes(config, _LARGEST_SIZES)
        check_heads(config, width="hidden_size", heads="num_attention_heads")
        check_epsilon(config, "layer_norm_eps")
        if self.task == "classify":
            check_labels(config)
        if config.hidden_act != "gelu":
            raise UnsupportedError(
                f"{self.display_name} with activation {config.hidden_act!r} is not supported, only 'gelu'"
            )
        if config.position_embedding_type != "absolute":
            raise UnsupportedError(
                f"{self.display_name} with {config.position_embedding_type!r} positions is not supported, "
                "only 'absolute'"
            )
        if config.is_decoder or config.add_cross_attention:
            raise UnsupportedError(f"{self.display_name} as a decoder is not supported, only as an encoder")

    @property
    def _prefix(self) -> str:
        return "" if self.task == "embed" else f"{self.family}."

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        names = [*self.block_linear_names, f"{self._prefix}pooler.dense"]
        return [*names, "classifier"] if self.task == "classify" else names

    @property
    def block_linear_names(self) -> list[str]:
        """Module names of the linear layers of all blocks, in the order in which they run."""
        blocks = self.layer_names[1:]
        return [f"{block}.{linear}" for block in blocks for linear in _LINEARS_OF_A_LAYER]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        kinds = ("word", "position", "token_type")
        return [f"{self._prefix}embeddings.{kind}_embeddings" for kind in kinds]

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        blocks = [f"{self._prefix}encoder.layer.{index}" for index in range(self.config.num_hidden_layers)]
        return [f"{self._prefix}embeddings", *blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        heads = self.config.num_attention_heads
        stack = LayerStack(
            name="encoder",
            blocks=f"{self._prefix}encoder.layer",
            depth=self.config.num_hidden_layers,
            depth_field="num_hidden_layers",
            width=self.config.hidden_size,
            embedding=f"{self._prefix}embeddings",
            attentions=(AttentionTap("self", "attention.self.query", "attention.self.key", heads),),
        )
        return (stack,)

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask", "token_type_ids"]

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
        return _PositionalBert(model, self.output_names[0])


class _PositionalBert(nn.Module):
    """BERT with positional inputs and one tensor as output."""

    def __init__(self, model: nn.Module, output_name: str) -> None:
        super().__init__()
        self.model = model
        self.output_name = output_name

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        # A mask of three dimensions becomes an additive [batch, 1, 1, sequence]; from two dimensions,
        # transformers would expand one of sequence x sequence for every text.
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask[:, None, :], token_type_ids=token_type_ids
        )
        result: torch.Tensor = output[self.output_name]
        return result
