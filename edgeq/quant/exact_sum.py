"""Integer matmuls computed in floating point without a rounding error."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeq.formats.low_bit import ACTIVATION_LEVELS

_FLOAT32_EXACT = 2**24  # every integer up to here is a float32, whatever the order of summation


def exact_linear(q: torch.Tensor, centred_codes: torch.Tensor, *, largest_level: float) -> torch.Tensor:
    """Computes ``q @ centred_codes.T`` exactly, then rounds once to float32.

    Float matmuls are far faster than integer ones in PyTorch and are exact as long as no partial
    sum leaves the integers that float32 holds; longer sums are cut into pieces that meet in float64.

    Args:
        q: float32 integers in -127..127, shape ``[..., K]``.
        centred_codes: float32 ``code - zero_point`` (integers or half-integers), shape ``[N, K]``.
        largest_level: Bound on the magnitudes in ``centred_codes``.

    Returns:
        float32, shape ``[..., N]``.
    """
    # Half-integers (zero points 0.5 and 1.5) are integers in units of one half.
    units = largest_level if float(largest_level).is_integer() else 2 * largest_level
    longest = int(_FLOAT32_EXACT // (units * ACTIVATION_LEVELS))
    if centred_codes.shape[1] <= longest:
        return functional.linear(q, centred_codes)
    pieces = zip(q.split(longest, dim=-1), centred_codes.split(longest, dim=1), strict=True)
    total = torch.zeros(*q.shape[:-1], centred_codes.shape[0], dtype=torch.float64, device=q.device)
    for q_piece, code_piece in pieces:
        total += functional.linear(q_piece, code_piece)
    return total.float()
