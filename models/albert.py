"""ALBERT: BERT whose layers are one layer, stored once and run many times, on narrow embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.activations import exportable_activation
from edgeq.models.adapter import Task
from edgeq.models.bert import UNDERSTOOD, BertAdapter
from edgeq.models.config_checks import check_sizes
from edgeq.models.heads import Head, PositionalEncoder
from edgeq.models.stacks import LayerStack
from edgeq.models.structure import with_modules_replaced
from edgeq.models.transformers_release import RELEASE, additive_mask


class AlbertAdapter(BertAdapter):
    """``AlbertModel``, with and without a head."""

    family: ClassVar[str] = "albert"
    display_name: ClassVar[str] = "ALBERT"
    body_name: ClassVar[str] = "albert"
    architectures: ClassVar[dict[str, Task]] = {
        "AlbertModel": "embed",
        "AlbertForSequenceClassification": "classify",
        "AlbertForTokenClassification": "tag",
        "AlbertForQuestionAnswering": "answer",
        "AlbertForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = BertAdapter.heads | {
        "fill": Head(
            ("predictions.dense", "predictions.decoder"), tied="predictions.decoder", bias_of="predictions"
        ),
    }
    pooler_name: ClassVar[str] = "pooler"
    understood: ClassVar[frozenset[str]] = UNDERSTOOD | {"embedding_size", "num_hidden_groups", "inner_group_num"}
    without_effect: ClassVar[dict[str, object]] = {
        # of Google's files; transformers reads none of them
        **dict.fromkeys(("gap_size", "net_structure_type", "num_memory_blocks"), 0),
        "down_scale_factor": 1,
        "layers_to_keep": [],
    }
    linears_of_a_block: ClassVar[tuple[str, ...]] = (
        *("attention.query", "attention.key", "attention.value", "attention.dense"),
        *("ffn", "ffn_output"),
    )
    untrained_because: ClassVar[str] = "runs one layer many times"

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        super().check_config()
        check_sizes(config, {"embedding_size": 1 << 20, "num_hidden_groups": 1000, "inner_group_num": 1000})
        if self.positions != "absolute":
            raise UnsupportedError(
                f"ALBERT with {self.positions!r} positions is not supported, only 'absolute'"
            )
        if config.num_hidden_layers % config.num_hidden_groups:
            raise UnsupportedError(
                f"ALBERT with {config.num_hidden_layers} layers in {config.num_hidden_groups} groups is not supported, "
                "only groups of equal size"
            )

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`; a layer that runs many times has one name."""
        first = f"{self._prefix}encoder.embedding_hidden_mapping_in"
        return [first, *super().linear_names]

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`; each block that is stored once."""
        groups = [f"{self._prefix}encoder.albert_layer_groups.{g}" for g in range(self.config.num_hidden_groups)]
        blocks = [f"{group}.albert_layers.{i}" for group in groups for i in range(self.config.inner_group_num)]
        return [f"{self._prefix}embeddings", *blocks]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """None: a block that runs many times is no stack of blocks that could be dropped or compared one by one."""
        return ()

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        exportable = with_modules_replaced(model, exportable_activation)
        return _PositionalAlbert(exportable, task=self.task, body=self.body_name)


class _PositionalAlbert(PositionalEncoder):
    """ALBERT, written out."""

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        states = body.embeddings(input_ids, token_type_ids=token_type_ids)
        # transformers would expand the mask to sequence x sequence for every text.
        bias = additive_mask(attention_mask, states.dtype)
        options = {"head_mask": [None] * body.config.num_hidden_layers} if RELEASE < 5 else {}
        result: torch.Tensor = body.encoder(states, attention_mask=bias, **options)[0]
        return result

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        del attention_mask
        logits: torch.Tensor = self.model.classifier(torch.tanh(self.model.albert.pooler(states[:, 0])))
        return logits

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.predictions(states)
        return logits
