"""Attention: over the sequence itself, and over a cache that is updated in place."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import relax, tirx

from edgeq.errors import UnsupportedError
from edgeq.targets.compiler.converters.kernel_calls import KernelCalls, shape_of, tensor
from edgeq.targets.compiler.kernels.attention import attention
from edgeq.targets.compiler.kernels.cached_attention import (
    CachedHead,
    Columns,
    append_and_attend,
    append_to_cache,
    cached_attention,
)

_REFUSED = ("is_causal", "softcap", "qk_matmul_output_mode")


def self_attention(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Attention`` of the standard, in the form that the exporter gives it."""
    q, k, v, mask = [*inputs, None][:4]
    heads, key_heads = int(attrs.get("q_num_heads", 0)), int(attrs.get("kv_num_heads", 0))
    unusual = [name for name in _REFUSED if attrs.get(name, 0) != 0]
    if len(shape_of(q)) != 3 or heads == 0 or heads != key_heads or len(inputs) > 4 or unusual:
        raise UnsupportedError(
            f"{attrs['name']}: this form of Attention has no kernel: expected q, k, v of shape "
            "[batch, sequence, width] with equal numbers of heads and no cache, "
            f"found rank {len(shape_of(q))}, {heads} and {key_heads} heads"
            f"{', ' + ', '.join(unusual) if unusual else ''}"
        )
    if mask is not None and (len(shape_of(mask)) != 4 or not all(_is_one(d) for d in shape_of(mask)[1:3])):
        raise UnsupportedError(
            f"{attrs['name']}: attention mask of shape {shape_of(mask)} has no kernel, only [batch, 1, 1, keys]"
        )
    head_size = int(shape_of(q)[-1]) // heads
    scale, masked = float(attrs.get("scale", head_size**-0.5)), mask is not None
    return calls.call(
        ("attention", heads, head_size, scale, masked),
        lambda: attention(calls.isa, heads, head_size, scale=scale, masked=masked),
        [q, k, v, mask] if masked else [q, k, v],
        tensor(shape_of(q)),
    )


def attention_over_cache(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``CachedAttention``: appends the new keys and values in place, then attends to what is there."""
    q, k, v, _, _, key_cache, value_cache = inputs
    head = _cached_head(key_cache)
    queries, keys, values = (
        Columns(int(shape_of(x)[-1]), int(attrs.get(first, 0)))
        for x, first in ((q, "q_first"), (k, "k_first"), (v, "v_first"))
    )
    scale = float(attrs["scale"])
    attend = calls.kernel(
        ("append_and_attend", *dataclasses.astuple(head), queries, keys, values, scale),
        lambda: append_and_attend(calls.isa, head, queries=queries, keys=keys, values=values, scale=scale),
    )
    out = tensor([*shape_of(q)[:-1], head.width])
    result = relax.op.call_tir_inplace(attend, inputs, [5, 6, -1], [key_cache.ty, value_cache.ty, out])
    return calls.parts(calls.builder.emit(result), 3)[2]


def attention_over_source(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``SourceAttention``: attends to all keys of a source that was read before."""
    q, _, _, key_cache, _ = inputs
    head = _cached_head(key_cache)
    queries = Columns(int(shape_of(q)[-1]), int(attrs.get("q_first", 0)))
    scale = float(attrs["scale"])
    return calls.call(
        ("source_attention", *dataclasses.astuple(head), queries, scale),
        lambda: cached_attention(calls.isa, head, queries=queries, scale=scale, causal=False),
        inputs,
        tensor([*shape_of(q)[:-1], head.width]),
    )


def store_in_cache(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``StoreInCache``: appends keys and values, in place; returns the two caches."""
    k, v, _, _, key_cache, value_cache = inputs
    head = _cached_head(key_cache)
    keys = Columns(int(shape_of(k)[-1]), int(attrs.get("k_first", 0)))
    values = Columns(int(shape_of(v)[-1]), int(attrs.get("v_first", 0)))
    append = calls.kernel(
        ("append_to_cache", *dataclasses.astuple(head), keys, values),
        lambda: append_to_cache(head, keys=keys, values=values),
    )
    updated = relax.op.call_tir_inplace(append, inputs, [4, 5], [key_cache.ty, value_cache.ty])
    return relax.Tuple(calls.parts(calls.builder.emit(updated), 2))


def _cached_head(key_cache: Any) -> CachedHead:
    _, heads, _, head_size, _ = shape_of(key_cache)
    return CachedHead(int(heads), int(head_size), str(key_cache.ty.dtype))


def _is_one(dimension: Any) -> bool:
    return isinstance(dimension, tirx.IntImm) and int(dimension) == 1
