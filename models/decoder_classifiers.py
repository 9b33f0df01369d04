"""Decoders that label a text by the state of its last token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn

from edgeq.models.adapter import ModelAdapter, Task
from edgeq.models.cache import attend, split_heads
from edgeq.models.config_checks import check_labels
from edgeq.models.decoder import CachedDecoder, DecoderAdapter, Memory
from edgeq.models.gpt2 import Gpt2Adapter
from edgeq.models.gpt_neox import GptNeoxAdapter
from edgeq.models.last_token import causal_mask, last_state
from edgeq.models.llama import LlamaAdapter, Qwen2Adapter
from edgeq.models.opt import OptAdapter
from edgeq.models.stacks import LayerStack

_HEAD = "score"


class DecoderClassifierAdapter(ModelAdapter):
    """A decoder whose last token that is not padding tells the label of a text; it is called once, without a cache."""

    decoder: ClassVar[type[DecoderAdapter]]
    """The adapter of the same decoder with its output head, which says all of the body."""
    positions: ClassVar[Literal["places", "tokens"]] = "places"
    """Whether ``transformers`` counts the positions of this family over all places, or over tokens alone."""
    module_prefix: ClassVar[str] = "decoder.model."

    def __init__(self, config: Any, architecture: str) -> None:
        self.body = self.decoder(config, next(iter(self.decoder.architectures)))
        super().__init__(config, architecture)

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`; the body has checked its own part."""
        check_labels(self.config)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        return [*(name for name in self.body.linear_names if name != self.decoder.head), _HEAD]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return self.body.embedding_names

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        return self.body.float_names

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return self.body.layer_names

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        return self.body.stacks

    @property
    def unread_because(self) -> str:  # type: ignore[override]  # a property of the body
        """See :attr:`ModelAdapter.unread_because`."""
        return self.body.unread_because

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`."""
        return self.body.max_positions

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        decoder = self.body.export_module(_WithoutHead(model, head=self.decoder.head))
        if not isinstance(decoder, CachedDecoder):
            raise TypeError(f"{type(self.body).__name__} exports a {type(decoder).__name__}, not a CachedDecoder")
        return LastTokenClassifier(
            decoder,
            padding=self.config.pad_token_id,
            key_heads=self.body.cache.heads,
            head_size=self.body.cache.head_size,
            counts_tokens=self.positions == "tokens",
            longest=self.max_positions,
        )


class Gpt2ClassifierAdapter(DecoderClassifierAdapter):
    """``GPT2ForSequenceClassification``."""

    family: ClassVar[str] = "gpt2"
    decoder: ClassVar[type[DecoderAdapter]] = Gpt2Adapter
    architectures: ClassVar[dict[str, Task]] = {"GPT2ForSequenceClassification": "classify"}


class OptClassifierAdapter(DecoderClassifierAdapter):
    """``OPTForSequenceClassification``."""

    family: ClassVar[str] = "opt"
    decoder: ClassVar[type[DecoderAdapter]] = OptAdapter
    architectures: ClassVar[dict[str, Task]] = {"OPTForSequenceClassification": "classify"}
    positions: ClassVar[Literal["places", "tokens"]] = "tokens"
    untrained_because: ClassVar[str] = OptAdapter.untrained_because


class LlamaClassifierAdapter(DecoderClassifierAdapter):
    """``LlamaForSequenceClassification``."""

    family: ClassVar[str] = "llama"
    decoder: ClassVar[type[DecoderAdapter]] = LlamaAdapter
    architectures: ClassVar[dict[str, Task]] = {"LlamaForSequenceClassification": "classify"}
    least_opset: ClassVar[int] = LlamaAdapter.least_opset


class Qwen2ClassifierAdapter(DecoderClassifierAdapter):
    """``Qwen2ForSequenceClassification``."""

    family: ClassVar[str] = "qwen2"
    decoder: ClassVar[type[DecoderAdapter]] = Qwen2Adapter
    architectures: ClassVar[dict[str, Task]] = {"Qwen2ForSequenceClassification": "classify"}
    least_opset: ClassVar[int] = Qwen2Adapter.least_opset


class GptNeoxClassifierAdapter(DecoderClassifierAdapter):
    """``GPTNeoXForSequenceClassification``."""

    family: ClassVar[str] = "gpt_neox"
    decoder: ClassVar[type[DecoderAdapter]] = GptNeoxAdapter
    architectures: ClassVar[dict[str, Task]] = {"GPTNeoXForSequenceClassification": "classify"}
    least_opset: ClassVar[int] = GptNeoxAdapter.least_opset


class _WithoutHead(nn.Module):
    """A classifier as a decoder takes it: with an output head that changes nothing.

    Args:
        model: The classifier.
        head: Name of the decoder's output head.
    """

    def __init__(self, model: Any, *, head: str) -> None:
        super().__init__()
        self.add_module(model.base_model_prefix, getattr(model, model.base_model_prefix))
        self.add_module(head, nn.Identity())
        self.score = model.score


class _OwnTokens(Memory):
    """What a token may look at where nothing is kept from call to call: the tokens of its own call.

    Args:
        mask: float32, added to the scores, ``[batch, 1, queries, queries]``.
        positions: int64, ``[batch, queries]``.
        key_heads: Heads of keys and values.
        head_size: Width of a head.
    """

    def __init__(self, mask: torch.Tensor, positions: torch.Tensor, *, key_heads: int, head_size: int) -> None:
        self.positions = positions
        self._mask = mask
        self._key_heads, self._head_size = key_heads, head_size

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float | None = None
    ) -> torch.Tensor:
        """See :meth:`Memory.attend`; keys and values stay float32."""
        heads = query.shape[-1] // self._head_size
        keys, values = (self._for_each_query(part, heads) for part in (key, value))
        return attend(split_heads(query, heads), keys, values, self._mask, scale=scale)

    def _for_each_query(self, states: torch.Tensor, heads: int) -> torch.Tensor:
        """Gives each head of queries keys of its own, where a head of keys serves several."""
        if heads == self._key_heads:
            return split_heads(states, heads)
        grouped = states.unflatten(-1, (self._key_heads, 1, self._head_size))
        repeated = torch.cat([grouped] * (heads // self._key_heads), dim=3)
        return split_heads(repeated.flatten(2), heads)


class LastTokenClassifier(nn.Module):
    """A text to logits by the state of its last token that is not padding.

    Args:
        decoder: The decoder, on a model whose output head changes nothing.
        padding: The token that ``transformers`` takes for padding, or None.
        key_heads: Heads of keys and values.
        head_size: Width of a head.
        counts_tokens: Whether positions are counted over the tokens that the mask shows, or over all places.
        longest: Longest text, in tokens.
    """

    places: torch.Tensor

    def __init__(
        self,
        decoder: CachedDecoder,
        *,
        padding: int | None,
        key_heads: int,
        head_size: int,
        counts_tokens: bool,
        longest: int,
    ) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(longest), persistent=False)
        self.decoder = decoder
        self.padding = padding
        self.key_heads, self.head_size = key_heads, head_size
        self.counts_tokens = counts_tokens

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Reads a batch of texts.

        Args:
            input_ids: int64, ``[batch, sequence]``.
            attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.

        Returns:
            Logits, float32 ``[batch, labels]``.
        """
        places = self.places[: input_ids.shape[1]]
        positions = places[None, :].expand_as(input_ids)
        if self.counts_tokens:
            positions = (attention_mask.cumsum(dim=1) - 1) * attention_mask
        mask = causal_mask(places, attention_mask)
        state = self.decoder.embed(input_ids, positions)
        for block in self.decoder.blocks:
            memory = _OwnTokens(mask, positions, key_heads=self.key_heads, head_size=self.head_size)
            state = self.decoder.block(block, state, memory)
        # transformers looks at the ids, and no further than that: a mask may hide what comes after the text as well.
        shown = attention_mask
        if self.padding is not None:
            shown = attention_mask * (input_ids != self.padding).to(torch.int64)
        score: Any = self.decoder.model.score
        logits: torch.Tensor = score(last_state(self.decoder.logits(state), shown, places))
        return logits

