"""BART's noise: spans of a text, each replaced by one mask token."""

from __future__ import annotations

import numpy as np

_MEAN_SPAN = 3.0  # BART's: lengths from a Poisson distribution, zero (an inserted mask) among them


def infill(ids: np.ndarray, random: np.random.Generator, *, mask: int, share: float) -> np.ndarray:
    """Returns ``ids`` with about ``share`` of them masked, a span at a time.

    Args:
        ids: Token ids ``[tokens]``, without begin and end.
        random: Source of the spans.
        mask: The mask token's id.
        share: Part of the tokens to hide, 0 to 1.
    """
    budget = round(len(ids) * share)
    hidden = np.zeros(len(ids), bool)
    starts = np.zeros(len(ids), bool)
    while hidden.sum() < budget:
        span = min(int(random.poisson(_MEAN_SPAN)), budget - int(hidden.sum()))
        start = int(random.integers(len(ids) - span))
        # A span that touches an earlier one would merge with it, and two masks in a row mean nothing else.
        if hidden[max(start - 1, 0) : start + span + 1].any() or starts[max(start - 1, 0) : start + span + 1].any():
            budget -= 1  # crowded texts end, too
            continue
        hidden[start : start + span] = True
        starts[start] = True
    kept: list[int] = []
    for position, token in enumerate(ids):
        if starts[position]:
            kept.append(mask)
        if not hidden[position]:
            kept.append(int(token))
    return np.array(kept, ids.dtype)
