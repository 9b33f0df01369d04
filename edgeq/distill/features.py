"""Runs a model and returns what losses compare: logits, hidden states and attention scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgeq.distill.labels import NO_LABEL
from edgeq.distill.sentence import Pooling, pool_states
from edgeq.errors import UnsupportedError
from edgeq.formats.tasks import TASKS
from edgeq.models import AttentionTap, LayerStack, ModelAdapter

Batch = Mapping[str, torch.Tensor]
"""Tensors of a batch: the model's inputs, ``labels`` where there are any, and ``example`` (int64 ``[batch]``)."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to read from the blocks of each stack, by its name.

    Attributes:
        hidden: Numbers of the hidden states: 0 for the embeddings' output, i + 1 for block i.
        attention: Numbers of the blocks whose attention scores are read.
    """

    hidden: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    attention: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class StackFeatures:
    """What one stack computed.

    Attributes:
        mask: bool, ``[batch, sequence]``: real tokens.
        hidden: Hidden states by number, ``[batch, sequence, width]``.
        scores: For each block, and each of its attentions by name, the scores before mask and softmax,
            ``[batch, heads, queries, keys]``.
        pairs: For each attention by name, bool ``[batch, 1, queries, keys]``: a real query sees a real key.
    """

    mask: torch.Tensor
    hidden: dict[int, torch.Tensor]
    scores: dict[int, dict[str, torch.Tensor]]
    pairs: dict[str, torch.Tensor]


@dataclasses.dataclass
class Features:
    """What a model computed.

    Attributes:
        output: Logits ``[batch, classes]`` or ``[batch, sequence, classes]``; of an embedding model the embeddings,
            ``[batch, width]``; of one that answers questions ``[batch, 2, sequence]``, in which padding has the lowest
            number.
        stacks: Its stacks by name.
    """

    output: torch.Tensor
    stacks: dict[str, StackFeatures]


class FeatureReader(nn.Module):
    """A model as a module from batches to :class:`Features`.

    Hooks read hidden states, queries and keys from the modules that the adapter names; scores are multiplied
    out here, so that the model's own attention may be any kernel. The hooks are on modules: make the reader
    after the model's layers were replaced, and call :meth:`close` before they are replaced again.

    Args:
        model: A float, training or compressed model.
        adapter: Its adapter.
        wanted: What is read besides the output.
        pooling: How token states become a sentence embedding.
    """

    def __init__(
        self, model: nn.Module, adapter: ModelAdapter, *, wanted: Wanted, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        self.model = model
        self._adapter = adapter
        self._wanted = wanted
        self._pooling = pooling
        self._read: dict[str, torch.Tensor] = {}
        modules = dict(model.named_modules())
        self._hooks = [
            modules[name].register_forward_hook(self._keep(name)) for name in sorted(self._module_names())
        ]

    def forward(self, batch: Batch) -> Features:
        """Runs the model.

        Args:
            batch: Its inputs; anything else in it is ignored.

        Raises:
            UnsupportedError: If a layer that is to be read did not run (LayerDrop).
        """
        self._read.clear()
        inputs: dict[str, Any] = {name: batch[name] for name in _INPUTS if name in batch}
        if TASKS[self._adapter.task].generates:
            inputs["use_cache"] = False
        result = self.model(**inputs)
        stacks = {stack.name: self._features(stack, batch) for stack in self._adapter.stacks}
        self._read.clear()
        if self._adapter.task == "embed":
            mask = batch["attention_mask"].bool()
            return Features(pool_states(result.last_hidden_state, mask, self._pooling), stacks)
        if self._adapter.task == "answer":
            logits = torch.stack([result.start_logits, result.end_logits], dim=1)
            hidden = ~batch["attention_mask"].bool()[:, None, :]
            return Features(logits.masked_fill(hidden, torch.finfo(logits.dtype).min), stacks)
        return Features(result.logits, stacks)

    def close(self) -> None:
        """Takes the hooks off the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _module_names(self) -> set[str]:
        names: set[str] = set()
        for stack in self._adapter.stacks:
            names |= {stack.hidden_name(index) for index in self._wanted.hidden.get(stack.name, ())}
            for index in self._wanted.attention.get(stack.name, ()):
                for tap in stack.attentions:
                    names |= {f"{stack.block(index)}.{tap.query}", f"{stack.block(index)}.{tap.key}"}
        return names

    def _keep(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._read[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _output_of(self, name: str) -> torch.Tensor:
        if name not in self._read:
            raise UnsupportedError(f"layer {name!r} did not run: set layerdrop to 0 in config.json")
        return self._read[name]

    def _features(self, stack: LayerStack, batch: Batch) -> StackFeatures:
        masks = _masks(batch)
        mask = masks.get(stack.name, masks["source"])
        hidden = {
            index: self._output_of(stack.hidden_name(index))
            for index in self._wanted.hidden.get(stack.name, ())
        }
        chosen = self._wanted.attention.get(stack.name, ())
        scores = {index: self._scores(stack, index) for index in chosen}
        taps = stack.attentions if chosen else ()
        pairs = {tap.name: _pairs(tap, mask, masks["source"]) for tap in taps}
        return StackFeatures(mask, hidden, scores, pairs)

    def _scores(self, stack: LayerStack, index: int) -> dict[str, torch.Tensor]:
        scores = {}
        for tap in stack.attentions:
            query = self._output_of(f"{stack.block(index)}.{tap.query}").chunk(tap.parts, dim=-1)
            key = self._output_of(f"{stack.block(index)}.{tap.key}").chunk(tap.parts, dim=-1)
            scores[tap.name] = _attention_scores(query[0], key[1 if tap.parts > 1 else 0], tap.heads)
        return scores


def _masks(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns the real tokens of the encoder input, and of the decoder of an encoder-decoder."""
    masks = {"source": batch["attention_mask"].bool()}
    if "decoder_input_ids" in batch:
        masks["decoder"] = batch["labels"] != NO_LABEL
    return masks


def _attention_scores(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """Returns ``query key^T / sqrt(head size)``, ``[batch, heads, queries, keys]``."""
    per_head = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key)]
    return per_head[0] @ per_head[1].transpose(-1, -2) / math.sqrt(per_head[0].shape[-1])


def _pairs(tap: AttentionTap, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    keys = source if tap.name == "cross" else mask
    pairs = mask[:, :, None] & keys[:, None, :]
    return (pairs.tril() if tap.causal else pairs)[:, None]
