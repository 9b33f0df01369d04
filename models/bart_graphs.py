"""The graphs of BART and its relatives: the encoder, the decoder's first and following steps, and the classifier.

The layers are those of the wrapped model; the order of operations is written out here, because the graphs
must not change with the version of ``transformers``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.models.activations import ACTIVATIONS
from edgeq.models.cache import (
    Stored,
    append,
    attend,
    keys_and_values,
    padding_mask,
    read,
    split_heads,
    store,
    unpadded_causal_mask,
)
from edgeq.models.last_token import causal_mask, last_state

Pair = tuple[Stored, Stored]
"""Keys and values, ``[batch, heads, length, head_size]`` each, as a cache holds them."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where BART and its relatives differ.

    Attributes:
        norms_before: Whether a block normalises what each of its parts reads, or the sum behind it. Where they come
            before, there is one more behind the last block.
        normed_embeddings: Whether the sum of token and position is normalised.
        activation: Name of the activation of the feed-forward layers.
        scale: Factor on the embedding of a token.
    """

    norms_before: bool
    normed_embeddings: bool
    activation: str
    scale: float

    def rows(self, body: Any, input_ids: torch.Tensor, *, past: int) -> torch.Tensor:
        """Returns the rows of the table of positions, for tokens after others."""
        first = past + getattr(body.embed_positions, "offset", 0)
        return torch.arange(input_ids.shape[1], device=input_ids.device) + first

    def embed(self, body: Any, input_ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Returns the state that the first block of one side reads, float32 ``[batch, sequence, width]``."""
        tokens = body.embed_tokens(input_ids)
        tokens = tokens if self.scale == 1 else tokens * self.scale
        state: torch.Tensor = tokens + functional.embedding(rows, body.embed_positions.weight)
        return body.layernorm_embedding(state) if self.normed_embeddings else state

    def part(self, norm: Any, state: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Adds what one part of a block computes to the state, with its norm in front of the part or behind the sum."""
        if self.norms_before:
            return state + compute(norm(state))
        normed: torch.Tensor = norm(state + compute(state))
        return normed

    def feed_forward(self, layer: Any, state: torch.Tensor) -> torch.Tensor:
        """Runs the feed-forward layers of a block."""
        activation = ACTIVATIONS[self.activation]
        return self.part(layer.final_layer_norm, state, lambda read: layer.fc2(activation(layer.fc1(read))))

    def last(self, body: Any, state: torch.Tensor) -> torch.Tensor:
        """Returns what one side hands on, from the state behind its last block."""
        return body.layer_norm(state) if self.norms_before else state


class BartEncoder(nn.Module):
    """Reads the encoder input.

    Args:
        model: A float or compressed model with an output head.
        heads: Attention heads of the encoder.
        layout: How its blocks are made.
    """

    def __init__(self, model: nn.Module, *, heads: int, layout: Layout) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.layout = layout

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Reads a batch of encoder inputs.

        Args:
            input_ids: int64, ``[batch, length]``; padding comes last, since positions count from the left.
            attention_mask: int64, ``[batch, length]``, 1 for a token and 0 for padding.

        Returns:
            float32, ``[batch, length, width]``.
        """
        rows = self.layout.rows(_part(self.model, "encoder"), input_ids, past=0)
        return _encode(self.model, input_ids, padding_mask(attention_mask), self.heads, rows=rows, layout=self.layout)


class _Decoder(nn.Module):
    """What all uses of the decoder have in common.

    Args:
        model: A float or compressed model.
        heads: Attention heads of the decoder.
        layout: How its blocks are made.
        cache_dtype: Type of the cache: float16, float32 or int8.
    """

    def __init__(self, model: nn.Module, *, heads: int, layout: Layout, cache_dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.layout = layout
        self.cache_dtype = cache_dtype

    def _cached(self, attention: Any, state: torch.Tensor) -> Pair:
        """Keys and values as they enter the cache."""
        keys, values = _keys_and_values(attention, state, self.heads)
        return store(keys, self.cache_dtype), store(values, self.cache_dtype)

    def _states(
        self,
        state: torch.Tensor,
        past: list[Pair] | None,
        sources: list[Pair],
        source_mask: torch.Tensor,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, list[Pair]]:
        """Returns the states behind the last block, and the keys and values of each; ``state`` is what it reads."""
        body, layout = _part(self.model, "decoder"), self.layout
        present: list[Pair] = []
        for index, layer in enumerate(body.layers):
            own = functools.partial(self._own, layer.self_attn, mask, None if past is None else past[index], present)
            state = layout.part(layer.self_attn_layer_norm, state, own)
            read = functools.partial(self._read, layer.encoder_attn, source_mask, sources[index])
            state = layout.part(layer.encoder_attn_layer_norm, state, read)
            state = layout.feed_forward(layer, state)
        return layout.last(body, state), present

    def _own(
        self, attention: Any, mask: torch.Tensor, past: Pair | None, present: list[Pair], state: torch.Tensor
    ) -> torch.Tensor:
        """Attends to what was written, and appends keys and values to ``present``."""
        keys, values = self._cached(attention, state)
        if past is not None:
            keys, values = append(past[0], keys), append(past[1], values)
        present.append((keys, values))
        return _attend(attention, state, read(keys), read(values), mask=mask, heads=self.heads)

    def _read(self, attention: Any, mask: torch.Tensor, source: Pair, state: torch.Tensor) -> torch.Tensor:
        """Attends to the encoder input."""
        return _attend(attention, state, *map(read, source), mask=mask, heads=self.heads)


class _Step(_Decoder):
    """A step of the decoder that gives logits; see :class:`_Decoder`."""

    def __init__(self, model: nn.Module, *, heads: int, layout: Layout, cache_dtype: torch.dtype) -> None:
        super().__init__(model, heads=heads, layout=layout, cache_dtype=cache_dtype)
        # Zero in all but a few checkpoints; a graph without the sum is smaller and exactly the same.
        bias = model.get_buffer("final_logits_bias")
        self.logits_bias = bias if bool(bias.any()) else None

    def _decode(
        self, input_ids: torch.Tensor, past: list[Pair] | None, sources: list[Pair], source_mask: torch.Tensor
    ) -> tuple[torch.Tensor, list[Pair]]:
        length = 0 if past is None else past[0][0][0].shape[2]
        mask = unpadded_causal_mask(past=length, queries=input_ids.shape[1], device=input_ids.device)
        body = _part(self.model, "decoder")
        state = self.layout.embed(body, input_ids, self.layout.rows(body, input_ids, past=length))
        state, present = self._states(state, past, sources, source_mask, mask)
        head: Any = self.model.lm_head
        logits = head(state)
        return logits if self.logits_bias is None else logits + self.logits_bias, present


class BartFirstStep(_Step):
    """The decoder's first step: it also makes the keys and values of the encoder input, which never change."""

    def forward(
        self,
        encoder_attention_mask: torch.Tensor,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Reads the beginning of the target.

        Args:
            encoder_attention_mask: int64, ``[batch, source]``, 1 for a token and 0 for padding.
            input_ids: int64, ``[batch, sequence]``, without padding.
            encoder_hidden_states: float32, ``[batch, source, width]``.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then for each layer the decoder's key and value
            and the encoder input's key and value, in the cache's type.
        """
        layers = _part(self.model, "decoder").layers
        sources = [self._cached(layer.encoder_attn, encoder_hidden_states) for layer in layers]
        logits, present = self._decode(input_ids, None, sources, padding_mask(encoder_attention_mask))
        pairs = (pair for both in zip(present, sources, strict=True) for pair in both)
        return logits, *_tensors(pairs)


class BartNextStep(_Step):
    """Any later step, on the caches that the first step made."""

    def forward(
        self, encoder_attention_mask: torch.Tensor, input_ids: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Reads more of the target.

        Args:
            encoder_attention_mask: int64, ``[batch, source]``, 1 for a token and 0 for padding.
            input_ids: int64, ``[batch, sequence]``, without padding.
            past: For each layer the decoder's key and value, ``[batch, heads, past, head_size]``, and the
                source's key and value, ``[batch, heads, source, head_size]``, in the cache's type; as int8, each with
                its scales behind it.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then for each layer the decoder's key and value
            with those of ``input_ids`` appended.
        """
        pairs = keys_and_values(past)
        own, sources = pairs[::2], pairs[1::2]
        logits, present = self._decode(input_ids, own, sources, padding_mask(encoder_attention_mask))
        return logits, *_tensors(present)


class BartWhole(nn.Module):
    """Encoder and decoder in one: the logits of a given target."""

    def __init__(self, encoder: BartEncoder, decoder: BartFirstStep) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, decoder_input_ids: torch.Tensor
    ) -> torch.Tensor:
        """Returns the logits, float32 ``[batch, target, vocabulary]``; all inputs are int64 with padding last."""
        states = self.encoder(input_ids, attention_mask)
        logits: torch.Tensor = self.decoder(attention_mask, decoder_input_ids, states)[0]
        return logits


class BartClassifier(_Decoder):
    """A text that encoder and decoder read, with logits from the decoder's state at its last end.

    Args:
        model: A float or compressed ``BartForSequenceClassification``.
        encoder_heads: Attention heads of the encoder.
        decoder_heads: Attention heads of the decoder.
        layout: How its blocks are made.
        start: Token that the decoder reads first.
        end: Token that ends a text.
        longest: Longest text, in tokens.
    """

    places: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        encoder_heads: int,
        decoder_heads: int,
        layout: Layout,
        start: int,
        end: int,
        longest: int,
    ) -> None:
        super().__init__(model, heads=decoder_heads, layout=layout, cache_dtype=torch.float32)
        self.register_buffer("places", torch.arange(longest), persistent=False)
        self.encoder_heads = encoder_heads
        self.start, self.end = start, end

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Reads a batch of texts.

        Args:
            input_ids: int64, ``[batch, length]``; padding comes last.
            attention_mask: int64, ``[batch, length]``, 1 for a token and 0 for padding.

        Returns:
            Logits, float32 ``[batch, labels]``; those of the first token for a text without an end.
        """
        mask, places = padding_mask(attention_mask), self.places[: input_ids.shape[1]]
        body = _part(self.model, "decoder")
        rows = places + body.embed_positions.offset
        read = _encode(self.model, input_ids, mask, self.encoder_heads, rows=rows, layout=self.layout)
        sources = [self._cached(layer.encoder_attn, read) for layer in body.layers]
        first = input_ids[:, :1] * 0 + self.start
        shifted = torch.cat([first, input_ids], dim=1)[:, : input_ids.shape[1]]
        states, _ = self._states(self.layout.embed(body, shifted, rows), None, sources, mask, causal_mask(places))
        ends = (input_ids == self.end).to(torch.int64) * attention_mask
        head: Any = self.model.classification_head
        logits: torch.Tensor = head(last_state(states, ends, places))
        return logits


def _encode(
    model: nn.Module, input_ids: torch.Tensor, mask: torch.Tensor, heads: int, *, rows: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """Returns the encoder's states; ``mask`` is added to the scores, ``rows`` are those of the positions."""
    body = _part(model, "encoder")
    state = layout.embed(body, input_ids, rows)
    for layer in body.layers:
        own = functools.partial(_attend_to_itself, layer.self_attn, mask, heads)
        state = layout.part(layer.self_attn_layer_norm, state, own)
        state = layout.feed_forward(layer, state)
    return layout.last(body, state)


def _attend_to_itself(attention: Any, mask: torch.Tensor, heads: int, state: torch.Tensor) -> torch.Tensor:
    keys, values = _keys_and_values(attention, state, heads)
    return _attend(attention, state, keys, values, mask=mask, heads=heads)


def _part(model: Any, side: str) -> Any:
    return getattr(model.model, side)


def _keys_and_values(attention: Any, state: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    return split_heads(attention.k_proj(state), heads), split_heads(attention.v_proj(state), heads)


def _attend(
    attention: Any, state: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    query = split_heads(attention.q_proj(state), heads)
    result: torch.Tensor = attention.out_proj(attend(query, keys, values, mask))
    return result


def _tensors(pairs: Iterable[Pair]) -> Iterator[torch.Tensor]:
    return (tensor for keys, values in pairs for tensor in (*keys, *values))
