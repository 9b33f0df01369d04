"""Self-attention with int8 queries, keys, values and weights of values: in training, as a layer, and as an operator.

The expression is that of ``edgeq/export/ops/int8_attention.py``. In training, gradients pass every rounding unchanged:
they are those of float attention on the rounded queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.formats.low_bit import ACTIVATION_LEVELS, LARGEST_INT8_HEAD, OP_DOMAIN, OP_VERSION
from edgeq.models.cache import additive, merge_heads, split_heads
from edgeq.quant.placing import put_layer
from edgeq.quant.quantizers.straight_through import GradientRule, straight_through
from edgeq.rounding import quantize_dynamic, with_noise

OPERATOR = "Int8Attention"


class Int8Attention(nn.Module):
    """Attention over queries, keys and values that layers have made.

    Args:
        heads: Number of heads.

    Attributes:
        on: Whether anything is rounded; training may begin with float attention.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.on = True

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        *,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        """Attends.

        Args:
            query: float32, ``[batch, queries, width]``.
            key: float32, ``[batch, keys, width]``.
            value: As ``key``.
            mask: float32, added to the scores: ``[batch, 1, 1 or queries, keys]``.
            dropout: Rate at which weights are left out, in training.

        Returns:
            float32, ``[batch, queries, width]``.
        """
        if torch.onnx.is_in_onnx_export():
            return self._symbolic([query, key, value, mask])
        q, k, v = (split_heads(x, self.heads) for x in (query, key, value))
        # Autocast would round the exact sums to 8 bits of mantissa.
        with torch.autocast(device_type=query.device.type, enabled=False):
            if not self.on:
                attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
            else:
                attended = int8_attention(with_noise(q), with_noise(k), with_noise(v), mask, dropout=dropout)
        return merge_heads(attended)

    def _symbolic(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        query = inputs[0]
        result: torch.Tensor = torch.onnx.ops.symbolic(
            f"{OP_DOMAIN}::{OPERATOR}",
            inputs,
            attrs={"num_heads": self.heads, "scale": float((query.shape[-1] // self.heads) ** -0.5)},
            dtype=torch.float32,
            shape=query.shape,
            version=OP_VERSION,
        )
        return result

    def extra_repr(self) -> str:
        """Describes the attention in ``print(model)``."""
        return f"{self.heads} heads"


class Int8SelfAttention(nn.Module):
    """Stands where a ``BertSelfAttention`` or one of its copies stood, on its layers.

    Args:
        attention: The module of ``transformers``; its layers may be float, in training, or packed.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.dropout = attention.dropout
        self.int8 = Int8Attention(attention.num_attention_heads)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """Attends; further arguments are those of a decoder, of which an encoder has none.

        Args:
            hidden_states: float32, ``[batch, sequence, width]``.
            attention_mask: What is added to scores, or bool, false for what is hidden: ``[batch, 1, 1 or sequence,
                sequence]``. None hides nothing.

        Returns:
            float32, ``[batch, sequence, width]``, and no attention weights.
        """
        states = [layer(hidden_states) for layer in (self.query, self.key, self.value)]
        if attention_mask is None:
            attention_mask = hidden_states.new_zeros((hidden_states.shape[0], 1, 1, hidden_states.shape[1]))
        elif attention_mask.dtype == torch.bool:
            attention_mask = additive(attention_mask)
        query, key, value, mask = (x.float() for x in (*states, attention_mask))
        return self.int8(query, key, value, mask, dropout=self.dropout.p if self.training else 0.0), None


def int8_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, *, dropout: float = 0.0
) -> torch.Tensor:
    """Computes attention as every backend does, with scale ``1 / sqrt(head_size)``.

    Args:
        query: float32, ``[batch, heads, queries, head_size]``.
        key: float32, ``[batch, heads, keys, head_size]``.
        value: As ``key``.
        mask: float32, added to the scores; broadcast to ``[batch, heads, queries, keys]``.
        dropout: Rate at which weights are left out, in training.

    Returns:
        float32, of the shape of ``query``.
    """
    kept = None
    if dropout:
        shape = (*query.shape[:3], key.shape[2])
        kept = functional.dropout(torch.ones(shape, dtype=torch.float32, device=query.device), dropout)
    (q, q_scale), (k, k_scale), (v, v_scale) = (quantize_dynamic(x.detach()) for x in (query, key, value))
    exact = _exact(q, k, v, scales=(q_scale, k_scale, v_scale), mask=mask, kept=kept)
    if not torch.is_grad_enabled():
        return exact
    rounded = (
        straight_through(codes * scale, x, GradientRule())
        for codes, scale, x in ((q, q_scale, query), (k, k_scale, key), (v, v_scale, value))
    )
    return straight_through(exact, _float(*rounded, mask=mask, kept=kept), GradientRule())


def _exact(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scales: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
    kept: torch.Tensor | None,
) -> torch.Tensor:
    q_scale, k_scale, v_scale = scales
    factor = (q_scale * q.shape[-1] ** -0.5) * k_scale.transpose(-1, -2)
    scores = (q @ k.transpose(-1, -2)) * factor + mask
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    weights = with_noise(powers * v_scale.transpose(-1, -2))
    largest = weights.amax(dim=-1, keepdim=True)
    levels = torch.full_like(largest, ACTIVATION_LEVELS)  # see quantize_dynamic
    codes = torch.round(weights * (levels / largest))
    codes = codes if kept is None else codes * kept
    longest = LARGEST_INT8_HEAD  # float32 adds as many products of codes exactly
    total = codes @ v if k.shape[2] <= longest else (codes.double() @ v.double()).float()
    return total * (largest / levels / powers.sum(dim=-1, keepdim=True))


def _float(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, mask: torch.Tensor, kept: torch.Tensor | None
) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask
    weights = scores.softmax(dim=-1)
    return (weights if kept is None else weights * kept) @ value


def use_int8_attention(model: nn.Module, names: Iterable[str]) -> None:
    """Puts int8 attention in the place of float self-attention, on the same layers.

    Args:
        model: Changed in place; attention that is int8 already stays as it is.
        names: The modules of ``transformers`` that are self-attention.

    Raises:
        FormatError: If one of them is none, or not of a form that can be int8.
        UnsupportedError: If a head is too wide.
    """
    for name in names:
        attention: Any = model.get_submodule(name)
        if isinstance(attention, Int8SelfAttention):
            continue
        parts = ("query", "key", "value", "dropout", "num_attention_heads", "attention_head_size")
        absolute = getattr(attention, "position_embedding_type", None) in (None, "absolute")
        if not all(hasattr(attention, part) for part in parts) or not absolute:
            raise FormatError(
                f"config.json: module {name!r} should be self-attention that can be int8, "
                f"found {type(attention).__name__}"
            )
        if attention.attention_head_size > LARGEST_INT8_HEAD:
            raise UnsupportedError(
                f"{name}: int8 attention takes heads of at most {LARGEST_INT8_HEAD} columns, "
                f"found {attention.attention_head_size}"
            )
        layer = Int8SelfAttention(attention)
        layer.train(attention.training)
        put_layer(model, name, layer)


def switch(model: nn.Module, *, on: bool) -> None:
    """Switches the rounding of all int8 attention of a model on, or off in a stage whose activations are float."""
    for module in model.modules():
        if isinstance(module, Int8Attention):
            module.on = on


def check_all_on(model: nn.Module) -> None:
    """Refuses to store int8 attention that was trained in float.

    Raises:
        UsageError: If one is switched off.
    """
    for name, module in model.named_modules():
        if isinstance(module, Int8Attention) and not module.on:
            raise UsageError(
                f"{name!r} should end as int8 attention, found it switched off; let the last stage switch it on"
            )


def int8_attention_names(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the modules whose attention is int8, in the model's order."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, Int8SelfAttention))
