"""Attention: over the sequence itself, and over a cache that is updated in place."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import relax

from edgeq.errors import UnsupportedError
from edgeq.formats.low_bit import LARGEST_INT8_HEAD
from edgeq.targets.compiler.cache_layout import head_size_of
from edgeq.targets.compiler.converters.kernel_calls import Converter, KernelCalls, is_size, shape_of, tensor
from edgeq.targets.compiler.kernels.attention import attention
from edgeq.targets.compiler.kernels.cached_attention import (
    Columns,
    append_and_attend,
    append_to_cache,
    cached_attention,
)
from edgeq.targets.compiler.kernels.cached_head import CachedHead, Int8CachedHead
from edgeq.targets.compiler.kernels.int8_attention import int8_attention
from edgeq.targets.compiler.passes.attention_mask import BIASED_ATTENTION
from edgeq.targets.compiler.passes.cache import CACHED_ATTENTION, SOURCE_ATTENTION, STORE_IN_CACHE

_REFUSED = ("is_causal", "softcap", "qk_matmul_output_mode")


def self_attention(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Attention`` of the standard, in the form that the exporter gives it."""
    _check_form(inputs, attrs, most_inputs=4)
    q, k, v, mask = [*inputs, None][:4]
    return _attention(calls, [q, k, v], [mask] if mask is not None else [], attrs)


def biased_attention(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``BiasedAttention``: the same, with two tensors instead of one to add to the scores."""
    _check_form(inputs, attrs, most_inputs=5)
    *added, last = sorted(inputs[3:], key=_is_mask, reverse=True)
    if not _is_mask(added[0]):
        added, last = [], calls.builder.emit(relax.op.add(added[0], last))
    return _attention(calls, inputs[:3], [*added, last], attrs)


def integer_attention(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``Int8Attention``: sums of integers for scores and for values."""
    q, k, v, mask = inputs
    heads = int(attrs["num_heads"])
    width = int(shape_of(q)[-1]) if len(shape_of(q)) == 3 else 0
    head_size = width // max(1, heads)
    if heads < 1 or width != heads * head_size or not 1 <= head_size <= LARGEST_INT8_HEAD or not _is_mask(mask):
        raise UnsupportedError(
            f"{attrs['name']}: expected queries [batch, sequence, width], heads of 1 to {LARGEST_INT8_HEAD} columns "
            f"and a mask [batch, 1, 1, keys], found queries {shape_of(q)}, {heads} heads and a mask {shape_of(mask)}"
        )
    scale = float(attrs["scale"])
    return calls.isa_call(
        ("int8_attention", heads, head_size, scale),
        lambda isa: int8_attention(isa, heads, head_size, scale=scale),
        [q, k, v, mask],
        tensor(shape_of(q)),
    )


def _check_form(inputs: list[Any], attrs: dict[str, Any], *, most_inputs: int) -> None:
    q = inputs[0]
    heads, key_heads = int(attrs.get("q_num_heads", 0)), int(attrs.get("kv_num_heads", 0))
    unusual = [name for name in _REFUSED if attrs.get(name, 0) != 0]
    if len(shape_of(q)) != 3 or heads == 0 or heads != key_heads or len(inputs) > most_inputs or unusual:
        raise UnsupportedError(
            f"{attrs['name']}: this form of Attention has no kernel: expected q, k, v of shape "
            "[batch, sequence, width] with equal numbers of heads and no cache, "
            f"found rank {len(shape_of(q))}, {heads} and {key_heads} heads"
            f"{', ' + ', '.join(unusual) if unusual else ''}"
        )


def _attention(calls: KernelCalls, states: list[Any], added: list[Any], attrs: dict[str, Any]) -> Any:
    """Emits the kernel; ``added`` holds a mask with one row for all heads and queries, a bias of any form, or both."""
    q = states[0]
    heads = int(attrs["q_num_heads"])
    masked = bool(added) and _is_mask(added[0])
    bias = _varying_axes(added[-1], heads, attrs) if len(added) > masked else None
    head_size = int(shape_of(q)[-1]) // heads
    scale = float(attrs.get("scale", head_size**-0.5))
    return calls.isa_call(
        ("attention", heads, head_size, scale, masked, bias),
        lambda isa: attention(isa, heads, head_size, scale=scale, masked=masked, bias=bias),
        [*states, *added],
        tensor(shape_of(q)),
    )


def _is_mask(value: Any) -> bool:
    """Whether it has the shape ``[batch, 1, 1, keys]``."""
    shape = shape_of(value)
    return len(shape) == 4 and not is_size(shape[0], 1) and all(is_size(size, 1) for size in shape[1:3])


def _varying_axes(bias: Any, heads: int, attrs: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Says for batch, heads and queries whether the bias has a row for each.

    Raises:
        UnsupportedError: If the shape is none that is broadcast to ``[batch, heads, queries, keys]``.
    """
    shape = shape_of(bias)
    if len(shape) != 4 or not (is_size(shape[1], 1) or is_size(shape[1], heads)):
        raise UnsupportedError(
            f"{attrs['name']}: attention mask of shape {shape} has no kernel, only what is broadcast to "
            f"[batch, {heads}, queries, keys]"
        )
    return not is_size(shape[0], 1), not is_size(shape[1], 1), not is_size(shape[2], 1)


def attention_over_cache(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``CachedAttention``: appends the new keys and values in place, then attends to what is there."""
    q, k, v, _, _, key_cache, value_cache = inputs
    head = _cached_head(key_cache, attrs)
    queries, keys, values = (
        Columns(int(shape_of(x)[-1]), int(attrs.get(first, 0)))
        for x, first in ((q, "q_first"), (k, "k_first"), (v, "v_first"))
    )
    scale = float(attrs["scale"])
    attend = calls.isa_kernel(
        ("append_and_attend", *dataclasses.astuple(head), queries, keys, values, scale),
        lambda isa: append_and_attend(isa, head, queries=queries, keys=keys, values=values, scale=scale),
    )
    out = tensor([*shape_of(q)[:-1], head.width])
    result = relax.op.call_tir_inplace(attend, inputs, [5, 6, -1], [key_cache.ty, value_cache.ty, out])
    return calls.parts(calls.builder.emit(result), 3)[2]


def attention_over_source(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``SourceAttention``: attends to all keys of an encoder input that was read before."""
    q, _, _, key_cache, _ = inputs
    head = _cached_head(key_cache, attrs)
    queries = Columns(int(shape_of(q)[-1]), int(attrs.get("q_first", 0)))
    scale = float(attrs["scale"])
    return calls.isa_call(
        ("source_attention", *dataclasses.astuple(head), queries, scale),
        lambda isa: cached_attention(isa, head, queries=queries, scale=scale, causal=False),
        inputs,
        tensor([*shape_of(q)[:-1], head.width]),
    )


def store_in_cache(calls: KernelCalls, inputs: list[Any], attrs: dict[str, Any]) -> Any:
    """``StoreInCache``: appends keys and values, in place; returns the two caches."""
    k, v, _, _, key_cache, value_cache = inputs
    head = _cached_head(key_cache, attrs)
    keys = Columns(int(shape_of(k)[-1]), int(attrs.get("k_first", 0)))
    values = Columns(int(shape_of(v)[-1]), int(attrs.get("v_first", 0)))
    append = calls.kernel(
        ("append_to_cache", *dataclasses.astuple(head), keys, values),
        lambda: append_to_cache(head, keys=keys, values=values),
    )
    updated = relax.op.call_tir_inplace(append, inputs, [4, 5], [key_cache.ty, value_cache.ty])
    return relax.Tuple(calls.parts(calls.builder.emit(updated), 2))


def _cached_head(key_cache: Any, attrs: dict[str, Any]) -> CachedHead:
    _, heads, _, *block = shape_of(key_cache)
    dtype, group = str(key_cache.ty.dtype), int(attrs.get("group", 1))
    if dtype == "int8":
        return Int8CachedHead(int(heads), head_size_of(int(block[0])), group=group)
    return CachedHead(int(heads), int(block[0]), dtype, group)


CONVERTERS: dict[str, Converter] = {
    "Attention": self_attention,
    BIASED_ATTENTION: biased_attention,
    CACHED_ATTENTION: attention_over_cache,
    "Int8Attention": integer_attention,
    SOURCE_ATTENTION: attention_over_source,
    STORE_IN_CACHE: store_in_cache,
}
