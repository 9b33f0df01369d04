"""What stands behind the body of an encoder, for each task: its layers by name, and how they are applied."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from edgeq.errors import FormatError
from edgeq.formats.tasks import TASKS
from edgeq.models.config_checks import check_labels

_SPANS = 2
"""Logits of a token where answers are looked for: that one begins there, and that one ends there."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The layers behind the body of a model.

    Attributes:
        linears: Module names of its linear layers, in the order in which they run.
        pooler: Whether it reads the body's pooler, in front of these layers.
        tied: The one of ``linears`` that uses the table of the words, if there is one and the configuration ties them.
        bias_of: Module that holds the bias of ``tied`` a second time, under the name ``bias``.
    """

    linears: tuple[str, ...] = ()
    pooler: bool = False
    tied: str = ""
    bias_of: str = ""

    def tied_names(self, table: str, config: Any) -> dict[str, str]:
        """Returns the layer that uses the table, with the table's name; empty where there is none."""
        return {self.tied: table} if self.tied and getattr(config, "tie_word_embeddings", True) else {}

    @property
    def repeated_names(self) -> dict[str, str]:
        """The two names of the bias."""
        return {f"{self.bias_of}.bias": f"{self.tied}.bias"} if self.bias_of else {}


def check_head(config: Any, task: str) -> None:
    """Refuses a configuration that does not fit the head of a task.

    Raises:
        FormatError: If labels are not numbered from 0, or the head has not the logits that the task needs.
    """
    if TASKS[task].has_labels:
        check_labels(config)
    if task == "answer" and config.num_labels != _SPANS:
        raise FormatError(
            f"config.json: a model that answers questions has {_SPANS} logits a token, found num_labels = "
            f"{config.num_labels}"
        )


def spans(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where answers start and end: two float32 ``[batch, sequence]``, of ``[batch, sequence, 2]``."""
    return logits[:, :, 0], logits[:, :, 1]


class PositionalEncoder(nn.Module):
    """An encoder with its head, with positional inputs, and tensors as outputs.

    A family whose model of ``transformers`` cannot be traced as it is writes its body and its heads out; the parts are
    the model's own.

    Args:
        model: A float or compressed model.
        task: What it is for.
        body: Name of the body within the model; empty for a model without a head.
    """

    def __init__(self, model: nn.Module, *, task: str, body: str) -> None:
        super().__init__()
        self.model: Any = model
        self.task = task
        self.body = body

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Returns what :attr:`ModelAdapter.output_names` says."""
        body = self.model if self.task == "embed" else getattr(self.model, self.body)
        states = self.states(body, input_ids, attention_mask, token_type_ids)
        if self.task == "embed":
            return states
        if self.task == "classify":
            return self.text_logits(states, attention_mask)
        if self.task == "tag":
            return self.token_logits(states)
        if self.task == "answer":
            return spans(self.span_logits(states))
        return self.word_logits(states)

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the states of all tokens, float32 ``[batch, sequence, width]``."""
        raise NotImplementedError

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns the logits of each text, float32 ``[batch, labels]``."""
        raise NotImplementedError

    def token_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the logits of each token, float32 ``[batch, sequence, labels]``."""
        logits: torch.Tensor = self.model.classifier(states)
        return logits

    def span_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Returns what tells where answers start and end, float32 ``[batch, sequence, 2]``."""
        logits: torch.Tensor = self.model.qa_outputs(states)
        return logits

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the logits of each word at each token, float32 ``[batch, sequence, vocabulary]``."""
        raise NotImplementedError
