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
from edgeq.models.stacks import LayerStack
from edgeq.models.structure import with_modules_replaced
from edgeq.models.transformers_release import RELEASE, additive_mask


class AlbertAdapter(BertAdapter):
    """``AlbertModel`` and ``AlbertForSequenceClassification``."""

    family: ClassVar[str] = "albert"
    display_name: ClassVar[str] = "ALBERT"
    body_name: ClassVar[str] = "albert"
    architectures: ClassVar[dict[str, Task]] = {
        "AlbertModel": "embed",
        "AlbertForSequenceClassification": "classify",
    }
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
        names = [first, *self.block_linear_names, *([f"{self._prefix}pooler"] if self.has_pooler else [])]
        return [*names, "classifier"] if self.task == "classify" else names

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
        return _PositionalAlbert(exportable, layers=self.config.num_hidden_layers, classifies=self.task == "classify")


class _PositionalAlbert(nn.Module):
    """ALBERT with positional inputs and one tensor as output."""

    def __init__(self, model: Any, *, layers: int, classifies: bool) -> None:
        super().__init__()
        self.model = model
        self.layers = layers
        self.classifies = classifies

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        body = self.model.albert if self.classifies else self.model
        states = body.embeddings(input_ids, token_type_ids=token_type_ids)
        # transformers would expand the mask to sequence x sequence for every text.
        bias = additive_mask(attention_mask, states.dtype)
        options = {"head_mask": [None] * self.layers} if RELEASE < 5 else {}
        states = body.encoder(states, attention_mask=bias, **options)[0]
        if not self.classifies:
            return states
        logits: torch.Tensor = self.model.classifier(torch.tanh(body.pooler(states[:, 0])))
        return logits
