"""Ways to quantize self-attention, as PyTorch functions that stand for ``scaled_dot_product_attention``.

Queries and keys are int8 with a scale a token and head in all of them. They differ in how the values and their weights
are held.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal
from unittest import mock

import torch
from torch.nn import functional

from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR

_HIDDEN = -1e30

Weights = Literal["float", "probabilities", "powers", "relative"]


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One way.

    Attributes:
        weights: What is rounded, to ``levels`` steps: ``probabilities`` in steps of ``1 / levels``; ``powers`` of e, of
            which the largest is 1, and their sum is that of the rounded ones; ``relative``: powers times the scales of
            the values, in steps of the largest over ``levels``. ``float``: neither weights nor values are rounded.
        levels: Steps.
        centred: Whether the mean of the keys is taken away first, which softmax does not see.
    """

    weights: Weights
    levels: int = 127
    centred: bool = False

    @property
    def values(self) -> str:
        """What a scale of the values belongs to: only ``relative`` can fold a token's into its weight."""
        return {"float": "float", "relative": "token"}.get(self.weights, "channel")


SCHEMES = {
    "relative, 127": Scheme("relative", 127),
    "powers, 255": Scheme("powers", 255),
    "probabilities, 255": Scheme("probabilities", 255),
    "relative, 255": Scheme("relative", 255),
    "relative, 127, keys centred": Scheme("relative", 127, centred=True),
    "powers, 127": Scheme("powers", 127),
    "float values": Scheme("float"),
}
"""By name; the first is the operator."""


@contextlib.contextmanager
def attention_in(scheme: Scheme) -> Iterator[None]:
    """Lets models compute their attention so."""

    def attend(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> torch.Tensor:
        return _attend(scheme, query, key, value, attn_mask)

    with mock.patch.object(functional, "scaled_dot_product_attention", attend):
        yield


def _attend(
    scheme: Scheme, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    added = query.new_zeros(query.shape[0], 1, 1, key.shape[2]) if mask is None else mask
    seen = (added > _HIDDEN)[:, :, :1].transpose(2, 3)
    if scheme.centred:
        key = key - torch.where(seen, key, 0).sum(2, keepdim=True) / seen.sum(2, keepdim=True)
    (q, q_scale), (k, k_scale) = _rounded(query, -1), _rounded(key, -1)
    scores = (q @ k.mT) * (q_scale * query.shape[-1] ** -0.5) * k_scale.mT + added
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    total, levels = powers.sum(-1, keepdim=True), scheme.levels
    if scheme.weights == "float":
        return (powers / total) @ value
    v, v_scale = _rounded(torch.where(seen, value, 0), -2 if scheme.values == "channel" else -1)
    if scheme.weights == "probabilities":
        return torch.round(powers / total * levels) @ v * v_scale / levels
    if scheme.weights == "powers":
        codes = torch.round(powers * levels)
        return codes @ v * v_scale / codes.sum(-1, keepdim=True)
    weights = powers * v_scale.mT
    largest = weights.amax(-1, keepdim=True)
    return torch.round(weights * (levels / largest)) @ v * (largest / levels / total)


def _rounded(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    largest = x.abs().amax(axis, keepdim=True).clamp(min=ACTIVATION_MAX_FLOOR)
    return torch.round(x * (ACTIVATION_LEVELS / largest)), largest / ACTIVATION_LEVELS
