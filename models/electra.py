"""ELECTRA: BERT without a pooler, with embeddings that may be narrower than the states."""

from __future__ import annotations

from typing import ClassVar

from edgeq.models.adapter import Task
from edgeq.models.bert import UNDERSTOOD, BertAdapter
from edgeq.models.config_checks import check_sizes
from edgeq.models.heads import Head


class ElectraAdapter(BertAdapter):
    """``ElectraModel``, with and without a head: the discriminator, which is what is fine-tuned, and the generator."""

    family: ClassVar[str] = "electra"
    display_name: ClassVar[str] = "ELECTRA"
    body_name: ClassVar[str] = "electra"
    architectures: ClassVar[dict[str, Task]] = {
        "ElectraModel": "embed",
        "ElectraForSequenceClassification": "classify",
        "ElectraForTokenClassification": "tag",
        "ElectraForQuestionAnswering": "answer",
        "ElectraForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = {
        "embed": Head(),
        "classify": Head(("classifier.dense", "classifier.out_proj")),
        "tag": Head(("classifier",)),
        "answer": Head(("qa_outputs",)),
        "fill": Head(("generator_predictions.dense", "generator_lm_head"), tied="generator_lm_head"),
    }
    understood: ClassVar[frozenset[str]] = UNDERSTOOD | {
        "embedding_size",
        # of a head for multiple choice, which no architecture above has
        *("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
    }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        check_sizes(self.config, {"embedding_size": 1 << 20})

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        is_narrow = self.config.embedding_size != self.config.hidden_size
        first = [f"{self._prefix}embeddings_project"] if is_narrow else []
        return [*first, *super().linear_names]
