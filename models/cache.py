"""Attention that reads keys and values from a cache of a given type, as every backend of edgeq does it."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeq.rounding import quantize_dynamic, with_noise

CACHE_DTYPES = {"float16": torch.float16, "float32": torch.float32, "int8": torch.int8}
"""Types of a cache by name. Keys and values are rounded to one when they enter the cache, those of the current tokens
as well: what is read is the same whether it was computed now or before. As int8, every token of every head has a scale
of its own: its largest magnitude over 127."""
DEFAULT_CACHE_DTYPE = torch.float16

Stored = tuple[torch.Tensor, ...]
"""Keys or values in a cache, ``[batch, heads, length, head_size]``; as int8 their codes, and their scales, float32
``[batch, heads, length, 1]``."""


def baseline_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the type of a float model's cache beside a compressed model whose cache is of ``dtype``.

    An int8 cache is a part of the compression: what it costs shows in the comparison with a float model without it.
    """
    return DEFAULT_CACHE_DTYPE if dtype == torch.int8 else dtype


def stored_names(part: str, dtype: torch.dtype) -> tuple[str, ...]:
    """Returns the names of the tensors that hold keys or values.

    Args:
        part: ``key`` or ``value``, possibly behind a prefix.
        dtype: Type of the cache.
    """
    return (part, f"{part}_scale") if dtype == torch.int8 else (part,)


def store(states: torch.Tensor, dtype: torch.dtype) -> Stored:
    """Rounds keys or values, float32 ``[batch, heads, length, head_size]``, to the type of a cache."""
    if dtype != torch.int8:
        return (states.to(dtype),)
    codes, scales = quantize_dynamic(with_noise(states))
    return codes.to(dtype), scales


def read(stored: Stored) -> torch.Tensor:
    """Returns keys or values as attention reads them: float32, ``[batch, heads, length, head_size]``."""
    if len(stored) == 1:
        return stored[0].float()
    codes, scales = stored
    return codes.float() * scales


def append(past: Stored, new: Stored) -> Stored:
    """Returns what is stored of earlier tokens and of those after them, in one."""
    return tuple(torch.cat(parts, dim=2) for parts in zip(past, new, strict=True))


def keys_and_values(tensors: list[torch.Tensor]) -> list[tuple[Stored, Stored]]:
    """Returns the tensors of a cache as keys and values of one attention after the other."""
    count = len(stored_names("key", tensors[0].dtype))
    parts = [tuple(tensors[first : first + count]) for first in range(0, len(tensors), count)]
    return list(zip(parts[::2], parts[1::2], strict=True))


def causal_mask(attention_mask: torch.Tensor, *, past: int, queries: int) -> torch.Tensor:
    """Says what each of the last tokens may see: itself and what is before it, but no padding.

    Args:
        attention_mask: int64, ``[batch, past + queries]``, 1 for a token and 0 for padding.
        past: Number of tokens in the cache.
        queries: Number of tokens after them, which look.

    Returns:
        float32 ``[batch, 1, queries, past + queries]`` to add to attention scores: 0, or the least float32.
        Not minus infinity: a padding token in front of the text sees nothing at all, and must not become NaN.
    """
    before = _past_or_self(past, queries, attention_mask.device)
    return additive(before[None, None] & attention_mask.bool()[:, None, None, :])


def unpadded_causal_mask(*, past: int, queries: int, device: torch.device) -> torch.Tensor:
    """Does what :func:`causal_mask` does where nothing is padding: float32 ``[1, 1, queries, past + queries]``."""
    return additive(_past_or_self(past, queries, device)[None, None])


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Hides padding from every token that looks.

    Args:
        attention_mask: int64, ``[batch, length]``, 1 for a token and 0 for padding.

    Returns:
        float32 ``[batch, 1, 1, length]`` to add to attention scores: 0, or the least float32.
    """
    return additive(attention_mask.bool()[:, None, None, :])


def _past_or_self(past: int, queries: int, device: torch.device) -> torch.Tensor:
    slots = torch.arange(past + queries, device=device)
    own = torch.arange(queries, device=device) + past
    return slots[None, :] <= own[:, None]


def additive(visible: torch.Tensor) -> torch.Tensor:
    """Returns what is added to scores, of the shape of ``visible``: 0 where it is true, or the least float32."""
    return torch.where(visible, 0.0, torch.finfo(torch.float32).min)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Turns ``[batch, sequence, width]`` into ``[batch, heads, sequence, head_size]``."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(states: torch.Tensor) -> torch.Tensor:
    """Turns ``[batch, heads, sequence, head_size]`` into ``[batch, sequence, width]``."""
    return states.transpose(1, 2).flatten(2)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """Attends to keys and values.

    Args:
        query: float32, ``[batch, heads, queries, head_size]``.
        keys: float32, ``[batch, key heads, length, head_size]``; a head of keys may serve several of queries.
        values: float32, of the same shape.
        mask: float32, added to the scores; broadcast to ``[batch, heads, queries, length]``.
        scale: Factor on the dot products; None is one over the square root of ``head_size``.

    Returns:
        float32, ``[batch, queries, width]``.
    """
    grouped = query.shape[1] != keys.shape[1]
    states = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped
    )
    return merge_heads(states)
