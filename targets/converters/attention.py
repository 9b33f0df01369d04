"""Attention: over the sequence itself, and over a cache that is updated in place."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx

from edgeq.errors import UnsupportedError
from edgeq.targets.converters.kernel_calls import KernelCalls, shape_of, tensor
from edgeq.targets.kernels.attention import attention
from edgeq.targets.kernels.cached_attention import CachedHead, append_to_cache, cached_attention

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
    qkv, past, new, keys, values = inputs
    head = CachedHead(
        heads=int(attrs["heads"]),
        head_size=int(attrs["head_size"]),
        scale=float(attrs["scale"]),
        dtype=str(keys.ty.dtype),
    )
    key = (head.heads, head.head_size, head.scale, head.dtype)
    append = calls.kernel(("append_to_cache", *key), lambda: append_to_cache(head))
    updated = calls.builder.emit(
        relax.op.call_tir_inplace(append, [qkv, past, new, keys, values], [3, 4], [keys.ty, values.ty])
    )
    return calls.call(
        ("cached_attention", *key),
        lambda: cached_attention(head),
        [qkv, past, new, *calls.parts(updated, 2)],
        tensor([*shape_of(qkv)[:-1], head.width]),
    )


def _is_one(dimension: Any) -> bool:
    return isinstance(dimension, tirx.IntImm) and int(dimension) == 1
