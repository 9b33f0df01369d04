"""The graphs of BART that are exported: the encoder, the decoder's first and following steps, and the classifier.

The layers are those of the wrapped model; the order of operations is written out here, because the graphs
must not change with the version of ``transformers``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.models.cache import attend, padding_mask, split_heads, unpadded_causal_mask
from edgeq.models.last_token import causal_mask, last_state

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, ``[batch, heads, length, head_size]`` each."""


class BartEncoder(nn.Module):
    """Reads the source.

    Args:
        model: A float or compressed ``BartForConditionalGeneration``.
        heads: Attention heads of the encoder.
    """

    def __init__(self, model: nn.Module, *, heads: int) -> None:
        super().__init__()
        self.model = model
        self.heads = heads

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Reads a batch of sources.

        Args:
            input_ids: int64, ``[batch, length]``; padding comes last, since positions count from the left.
            attention_mask: int64, ``[batch, length]``, 1 for a token and 0 for padding.

        Returns:
            float32, ``[batch, length, width]``.
        """
        rows = _rows(_part(self.model, "encoder"), input_ids, past=0)
        return _encode(self.model, input_ids, padding_mask(attention_mask), self.heads, rows=rows)


class _Decoder(nn.Module):
    """What all uses of the decoder have in common.

    Args:
        model: A float or compressed BART.
        heads: Attention heads of the decoder.
        cache_dtype: Type of the cache: float16 or float32.
    """

    def __init__(self, model: nn.Module, *, heads: int, cache_dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.heads = heads
        self.cache_dtype = cache_dtype

    def _cached(self, attention: Any, state: torch.Tensor) -> Pair:
        """Keys and values as they enter the cache."""
        keys, values = _keys_and_values(attention, state, self.heads)
        return keys.to(self.cache_dtype), values.to(self.cache_dtype)

    def _states(
        self,
        state: torch.Tensor,
        past: list[Pair] | None,
        sources: list[Pair],
        source_mask: torch.Tensor,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, list[Pair]]:
        """Returns the states behind the last block, and the keys and values of each; ``state`` is what it reads."""
        body = _part(self.model, "decoder")
        present: list[Pair] = []
        for index, layer in enumerate(body.layers):
            keys, values = self._cached(layer.self_attn, state)
            if past is not None:
                keys, values = (torch.cat(p, dim=2) for p in zip(past[index], (keys, values), strict=True))
            present.append((keys, values))
            attended = _attend(layer.self_attn, state, (keys, values), mask, self.heads)
            state = layer.self_attn_layer_norm(state + attended)
            attended = _attend(layer.encoder_attn, state, sources[index], source_mask, self.heads)
            state = layer.encoder_attn_layer_norm(state + attended)
            state = _feed_forward(layer, state)
        return state, present


class _Step(_Decoder):
    """A step of the decoder that gives logits; see :class:`_Decoder`."""

    def __init__(self, model: nn.Module, *, heads: int, cache_dtype: torch.dtype) -> None:
        super().__init__(model, heads=heads, cache_dtype=cache_dtype)
        # Zero in all but a few checkpoints; a graph without the sum is smaller and exactly the same.
        bias = model.get_buffer("final_logits_bias")
        self.logits_bias = bias if bool(bias.any()) else None

    def _decode(
        self, input_ids: torch.Tensor, past: list[Pair] | None, sources: list[Pair], source_mask: torch.Tensor
    ) -> tuple[torch.Tensor, list[Pair]]:
        length = 0 if past is None else past[0][0].shape[2]
        mask = unpadded_causal_mask(past=length, queries=input_ids.shape[1], device=input_ids.device)
        body = _part(self.model, "decoder")
        state = _embed(body, input_ids, _rows(body, input_ids, past=length))
        state, present = self._states(state, past, sources, source_mask, mask)
        head: Any = self.model.lm_head
        logits = head(state)
        return logits if self.logits_bias is None else logits + self.logits_bias, present


class BartFirstStep(_Step):
    """The decoder's first step: it also makes the keys and values of the source, which never change."""

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
            and the source's key and value, in the cache's type.
        """
        layers = _part(self.model, "decoder").layers
        sources = [self._cached(layer.encoder_attn, encoder_hidden_states) for layer in layers]
        logits, present = self._decode(input_ids, None, sources, padding_mask(encoder_attention_mask))
        return logits, *(t for own, read in zip(present, sources, strict=True) for t in (*own, *read))


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
                source's key and value, ``[batch, heads, source, head_size]``, in the cache's type.

        Returns:
            Logits, float32 ``[batch, sequence, vocabulary]``, then for each layer the decoder's key and value
            with those of ``input_ids`` appended.
        """
        own = list(zip(past[0::4], past[1::4], strict=True))
        sources = list(zip(past[2::4], past[3::4], strict=True))
        logits, present = self._decode(input_ids, own, sources, padding_mask(encoder_attention_mask))
        return logits, *(tensor for pair in present for tensor in pair)


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
        start: Token that the decoder reads first.
        end: Token that ends a text.
        longest: Longest text, in tokens.
    """

    places: torch.Tensor

    def __init__(
        self, model: nn.Module, *, encoder_heads: int, decoder_heads: int, start: int, end: int, longest: int
    ) -> None:
        super().__init__(model, heads=decoder_heads, cache_dtype=torch.float32)
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
        read = _encode(self.model, input_ids, mask, self.encoder_heads, rows=rows)
        sources = [self._cached(layer.encoder_attn, read) for layer in body.layers]
        first = input_ids[:, :1] * 0 + self.start
        shifted = torch.cat([first, input_ids], dim=1)[:, : input_ids.shape[1]]
        states, _ = self._states(_embed(body, shifted, rows), None, sources, mask, causal_mask(places))
        ends = (input_ids == self.end).to(torch.int64) * attention_mask
        head: Any = self.model.classification_head
        logits: torch.Tensor = head(last_state(states, ends, places))
        return logits


def _encode(
    model: nn.Module, input_ids: torch.Tensor, mask: torch.Tensor, heads: int, *, rows: torch.Tensor
) -> torch.Tensor:
    """Returns the encoder's states; ``mask`` is added to the scores, ``rows`` are those of the positions."""
    body = _part(model, "encoder")
    state = _embed(body, input_ids, rows)
    for layer in body.layers:
        attention = layer.self_attn
        attended = _attend(attention, state, _keys_and_values(attention, state, heads), mask, heads)
        state = layer.self_attn_layer_norm(state + attended)
        state = _feed_forward(layer, state)
    return state


def _part(model: Any, side: str) -> Any:
    return getattr(model.model, side)


def _rows(body: Any, input_ids: torch.Tensor, *, past: int) -> torch.Tensor:
    """Rows of the table of positions, for tokens after others."""
    return torch.arange(input_ids.shape[1], device=input_ids.device) + (past + body.embed_positions.offset)


def _embed(body: Any, input_ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    state = body.embed_tokens(input_ids) + functional.embedding(rows, body.embed_positions.weight)
    normed: torch.Tensor = body.layernorm_embedding(state)
    return normed


def _keys_and_values(attention: Any, state: torch.Tensor, heads: int) -> Pair:
    return split_heads(attention.k_proj(state), heads), split_heads(attention.v_proj(state), heads)


def _attend(
    attention: Any, state: torch.Tensor, memory: Pair, mask: torch.Tensor, heads: int
) -> torch.Tensor:
    query = split_heads(attention.q_proj(state), heads)
    result: torch.Tensor = attention.out_proj(attend(query, *memory, mask))
    return result


def _feed_forward(layer: Any, state: torch.Tensor) -> torch.Tensor:
    hidden = functional.gelu(layer.fc1(state))
    result: torch.Tensor = layer.final_layer_norm(state + layer.fc2(hidden))
    return result
