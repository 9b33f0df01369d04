"""Quantization of activations, keys and values to int8, as every backend of edgeq computes it.

The scale is a token's largest magnitude over 127. The value is *multiplied by the inverse* ``127 / max``
rather than divided by the scale: one correctly rounded division a token instead of one an element, on a
vector unit and here alike. The two differ in the last bit, so this file is the definition.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import torch

from edgeq.formats.low_bit import ACTIVATION_LEVELS, ACTIVATION_MAX_FLOOR

_noise: contextvars.ContextVar[torch.Generator | None] = contextvars.ContextVar(
    "edgeq_ulp_noise", default=None
)


def quantize_dynamic(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes each token (each row of the last axis) with its own scale.

    Args:
        x: float32, shape ``[..., K]``.

    Returns:
        ``q``: float32 of shape ``[..., K]`` holding integers in -127..127, rounded half to even.
        ``scale``: float32 of shape ``[..., 1]``; ``x`` is about ``q * scale``.
    """
    largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=ACTIVATION_MAX_FLOOR)
    # Tensor by tensor: torch computes "number / tensor" as the number times a rounded reciprocal, which is
    # one ulp off for a quarter of all values.
    levels = torch.full_like(largest, ACTIVATION_LEVELS)
    scale = largest / levels
    inverse = levels / largest
    return _round_and_clip(x * inverse), scale


def quantize_static(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Quantizes with one given scale for all tokens.

    Args:
        x: float32, shape ``[..., K]``.
        scale: Positive float32 of shape ``[1]``.

    Returns:
        float32 of the shape of ``x`` holding integers in -127..127, rounded half to even.
    """
    return _round_and_clip(x * (1.0 / scale))


def _round_and_clip(x: torch.Tensor) -> torch.Tensor:
    return torch.round(x).clamp(-ACTIVATION_LEVELS, ACTIVATION_LEVELS)


@contextlib.contextmanager
def ulp_noise(seed: int) -> Iterator[None]:
    """While active, what every low-bit linear layer and every int8 cache rounds is moved by a random -1, 0 or +1 ulp.

    Two correct programs differ by about this much in front of a quantizer, and rounding can turn such a
    difference into a whole step. Runs under noise therefore measure how far two *correct* programs may
    end up from each other, which is the yardstick of the parity checks.

    Args:
        seed: Seed of the noise; one seed gives one noise.
    """
    token = _noise.set(torch.Generator().manual_seed(seed))
    try:
        yield
    finally:
        _noise.reset(token)


def with_noise(x: torch.Tensor) -> torch.Tensor:
    """Returns ``x``, or its randomly moved neighbour inside :func:`ulp_noise`."""
    generator = _noise.get()
    if generator is None:
        return x
    # Drawn on the CPU, so that one seed gives one noise on every device.
    step = torch.randint(-1, 2, x.shape, generator=generator, dtype=torch.int8).to(x.device)
    towards = torch.where(step > 0, torch.inf, -torch.inf).to(x.dtype)
    return torch.where(step == 0, x, torch.nextafter(x, towards))
