"""BERT: encoders for sentence embeddings, and with heads for texts, tokens, answers and masks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import transformers
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.activations import check_activation, exportable_activation
from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.config_checks import check_epsilon, check_heads, check_sizes
from edgeq.models.heads import Head, check_head, spans
from edgeq.models.self_attention import SelfAttention
from edgeq.models.stacks import AttentionTap, LayerStack, Migration
from edgeq.models.structure import with_modules_replaced
from edgeq.models.transformers_release import RELEASE, padding_mask
from edgeq.models.understood_keys import check_understood

_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 31,
    "type_vocab_size": 1 << 31,
}
_SPELLED_OUT = ("ElectraSelfAttention",)
"""Modules of ``transformers`` that compute attention in several operations."""
_RELATIVE = ("relative_key", "relative_key_query")
_ABSOLUTE_ONLY = 5
"""First release of transformers whose BERT knows absolute positions only."""
UNDERSTOOD = frozenset(
    {*_LARGEST_SIZES, "hidden_act", "layer_norm_eps", "position_embedding_type", "is_decoder", "add_cross_attention"}
    | {"add_pooling_layer"}  # written where a checkpoint has no pooler
    | {"tie_word_embeddings"}  # of the language model's head
)
"""Keys of ``config.json`` that BERT and its kin have in common."""
_OF_GOOGLE: dict[str, object] = {  # of the multilingual BERT; transformers reads none of them
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}


class BertAdapter(ModelAdapter):
    """``BertModel``, with and without a head."""

    family: ClassVar[str] = "bert"
    display_name: ClassVar[str] = "BERT"
    body_name: ClassVar[str] = "bert"
    """Name of the encoder within a model that has a head."""
    understood: ClassVar[frozenset[str]] = UNDERSTOOD
    """Keys of ``config.json`` that are read or checked."""
    without_effect: ClassVar[dict[str, object]] = _OF_GOOGLE
    """Keys that change nothing as long as they have these values."""
    largest_sizes: ClassVar[dict[str, int]] = _LARGEST_SIZES
    """Sizes in the configuration, with the largest value of each."""
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        *("intermediate.dense", "output.dense"),
    )
    """Names inside a block of its linear layers, in the order in which they run: first those of the attention."""
    tables: ClassVar[tuple[str, ...]] = ("word", "position", "token_type")
    """Kinds of embeddings that a token has."""
    blocks: ClassVar[str] = "encoder.layer"
    """Name of the list of blocks within the encoder."""
    activation_field: ClassVar[str] = "hidden_act"
    """Field of the configuration that names the activation."""
    epsilon_field: ClassVar[str] = "layer_norm_eps"
    """Field of the configuration that holds what norms add to the variance."""
    architectures: ClassVar[dict[str, Task]] = {
        "BertModel": "embed",
        "BertForSequenceClassification": "classify",
        "BertForTokenClassification": "tag",
        "BertForQuestionAnswering": "answer",
        "BertForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = {
        "embed": Head(pooler=True),
        "classify": Head(("classifier",), pooler=True),
        "tag": Head(("classifier",)),
        "answer": Head(("qa_outputs",)),
        "fill": Head(
            ("cls.predictions.transform.dense", "cls.predictions.decoder"),
            tied="cls.predictions.decoder",
            bias_of="cls.predictions",
        ),
    }
    """What stands behind the body, by task."""
    pooler_name: ClassVar[str] = "pooler.dense"
    """Name of the pooler's linear layer within the body."""

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_sizes(config, self.largest_sizes)
        check_heads(config, width="hidden_size", heads="num_attention_heads")
        check_epsilon(config, self.epsilon_field)
        check_head(config, self.task)
        check_understood(
            config, self.understood, family=self.display_name, without_effect=self.without_effect
        )
        check_activation(config, self.activation_field, family=self.display_name)
        if self.positions not in ("absolute", *_RELATIVE):
            raise UnsupportedError(
                f"{self.display_name} with {self.positions!r} positions is not supported, "
                f"only 'absolute', {' and '.join(map(repr, _RELATIVE))}"
            )
        if self.positions in _RELATIVE and RELEASE >= _ABSOLUTE_ONLY:
            raise UnsupportedError(
                f"{self.display_name} with {self.positions!r} positions is not computed by transformers "
                f"{transformers.__version__}; install transformers<{_ABSOLUTE_ONLY}"
            )
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            raise UnsupportedError(f"{self.display_name} as a decoder is not supported, only as an encoder")

    @property
    def positions(self) -> str:
        """``absolute``, or a kind of embeddings of distances, which releases 5 and later of transformers lack."""
        return getattr(self.config, "position_embedding_type", None) or "absolute"

    @property
    def _prefix(self) -> str:
        return "" if self.task == "embed" else f"{self.body_name}."

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        pooler = [f"{self._prefix}{self.pooler_name}"] if self.head.pooler and self.has_pooler else []
        return [*self.block_linear_names, *pooler, *self.head.linears]

    @property
    def head(self) -> Head:
        """What stands behind the body."""
        return self.heads[self.task]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return self.head.tied_names(f"{self._prefix}embeddings.word_embeddings", self.config)

    @property
    def repeated_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.repeated_names`."""
        return self.head.repeated_names

    @property
    def optional_modules(self) -> list[str]:
        """See :attr:`ModelAdapter.optional_modules`."""
        return ["pooler"] if self.task == "embed" else []

    @property
    def block_linear_names(self) -> list[str]:
        """Module names of the linear layers of all blocks, in the order in which they run."""
        blocks = self.layer_names[1:]
        return [f"{block}.{linear}" for block in blocks for linear in self.linears_of_a_block]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [*(f"{self._prefix}embeddings.{kind}_embeddings" for kind in self.tables), *self._distance_tables]

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return dict.fromkeys(self._distance_tables, "distances are multiplied with every query, and are few")

    @property
    def int8_attention_names(self) -> list[str]:
        """See :attr:`ModelAdapter.int8_attention_names`."""
        module, _, layer = self.linears_of_a_block[0].rpartition(".")
        if (module, layer) != ("attention.self", "query") or self.positions != "absolute":
            return []
        return [f"{block}.{module}" for block in self.layer_names[1:]]

    @property
    def _distance_tables(self) -> list[str]:
        if self.positions not in _RELATIVE:
            return []
        return [f"{block}.attention.self.distance_embedding" for block in self.layer_names[1:]]

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        blocks = [f"{self._prefix}{self.blocks}.{index}" for index in range(self.config.num_hidden_layers)]
        return [f"{self._prefix}embeddings", *blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        query, key, value, output, *_ = self.linears_of_a_block
        stack = LayerStack(
            name="encoder",
            blocks=f"{self._prefix}{self.blocks}",
            depth=self.config.num_hidden_layers,
            depth_field="num_hidden_layers",
            width=self.config.hidden_size,
            embedding=f"{self._prefix}embeddings",
            attentions=(AttentionTap("self", query, key, self.config.num_attention_heads),),
            migrations=(Migration(value, (output,)),),
        )
        return (stack,)

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask", "token_type_ids"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return int(self.config.max_position_embeddings)

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        return _PositionalBert(exportable(model), self.output_names, body=self.body_name)


def exportable(model: nn.Module) -> nn.Module:
    """Returns the model with parts that have operators of their own: activations, and attention to distances."""
    return with_modules_replaced(model, _exportable_part)


def _exportable_part(module: nn.Module) -> nn.Module | None:
    if type(module).__name__ in _SPELLED_OUT or hasattr(module, "distance_embedding"):
        return SelfAttention(module)
    return exportable_activation(module)


class EncoderOutputs(nn.Module):
    """A model of ``transformers`` whose results are tensors.

    Args:
        model: The model.
        output_names: What it returns.
        body: Name of its encoder, if it has a head.
    """

    def __init__(self, model: nn.Module, output_names: list[str], *, body: str) -> None:
        super().__init__()
        self.model: Any = model
        self.output_names = output_names
        self.body = body

    def outputs(self, **inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Returns the outputs, in their order."""
        if len(self.output_names) > 1:  # transformers splits them in two, which is two picks of a column
            states = getattr(self.model, self.body)(**inputs)["last_hidden_state"]
            return spans(self.model.qa_outputs(states))
        result: torch.Tensor = self.model(**inputs)[self.output_names[0]]
        return result


class _PositionalBert(EncoderOutputs):
    """BERT with positional inputs."""

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return self.outputs(
            input_ids=input_ids, attention_mask=padding_mask(attention_mask), token_type_ids=token_type_ids
        )
