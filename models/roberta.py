"""RoBERTa, also in other languages: BERT's layers, positions that begin behind the padding id, no token types."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from edgeq.models.adapter import Task
from edgeq.models.bert import BertAdapter, EncoderOutputs, exportable
from edgeq.models.config_checks import check_padding_id
from edgeq.models.heads import Head
from edgeq.models.transformers_release import padding_mask


class RobertaAdapter(BertAdapter):
    """``RobertaModel``, with and without a head; DistilRoBERTa as well."""

    family: ClassVar[str] = "roberta"
    display_name: ClassVar[str] = "RoBERTa"
    body_name: ClassVar[str] = "roberta"
    architectures: ClassVar[dict[str, Task]] = {
        "RobertaModel": "embed",
        "RobertaForSequenceClassification": "classify",
        "RobertaForTokenClassification": "tag",
        "RobertaForQuestionAnswering": "answer",
        "RobertaForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = {
        "embed": Head(pooler=True),
        "classify": Head(("classifier.dense", "classifier.out_proj")),
        "tag": Head(("classifier",)),
        "answer": Head(("qa_outputs",)),
        "fill": Head(("lm_head.dense", "lm_head.decoder"), tied="lm_head.decoder", bias_of="lm_head"),
    }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        check_padding_id(self.config, positions="max_position_embeddings")

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`: the table's first rows, up to the padding id's, are not used."""
        return int(self.config.max_position_embeddings) - self.config.pad_token_id - 1

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        return _PositionalRoberta(
            exportable(model), self.output_names, body=self.body_name, padding=self.config.pad_token_id
        )


class XlmRobertaAdapter(RobertaAdapter):
    """``XLMRobertaModel``, with and without a head: RoBERTa in a hundred languages."""

    family: ClassVar[str] = "xlm-roberta"
    display_name: ClassVar[str] = "XLM-RoBERTa"
    architectures: ClassVar[dict[str, Task]] = {
        "XLMRobertaModel": "embed",
        "XLMRobertaForSequenceClassification": "classify",
        "XLMRobertaForTokenClassification": "tag",
        "XLMRobertaForQuestionAnswering": "answer",
        "XLMRobertaForMaskedLM": "fill",
    }


class CamembertAdapter(RobertaAdapter):
    """``CamembertModel``, with and without a head: RoBERTa in French."""

    family: ClassVar[str] = "camembert"
    display_name: ClassVar[str] = "CamemBERT"
    architectures: ClassVar[dict[str, Task]] = {
        "CamembertModel": "embed",
        "CamembertForSequenceClassification": "classify",
        "CamembertForTokenClassification": "tag",
        "CamembertForQuestionAnswering": "answer",
        "CamembertForMaskedLM": "fill",
    }


class _PositionalRoberta(EncoderOutputs):
    """RoBERTa with positional inputs."""

    def __init__(self, model: nn.Module, output_names: list[str], *, body: str, padding: int) -> None:
        super().__init__(model, output_names, body=body)
        self.padding = padding

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        # Counted over the tokens that are not the padding token, wherever that stands; it has the row before the first.
        counted = (input_ids != self.padding).to(torch.int64)
        positions = counted.cumsum(dim=1) * counted + self.padding
        return self.outputs(
            input_ids=input_ids, attention_mask=padding_mask(attention_mask), position_ids=positions
        )
