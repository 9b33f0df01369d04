"""End to end: how far a stage is from PyTorch, against how far PyTorch is from itself under noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgeq.parity.feeds import Arrays
from edgeq.parity.report import Check

FACTOR = 2.0
"""A stage may differ by this multiple of the envelope: its own roundings come on top of the noise's."""
FEWEST_NOISE_RUNS = 8
MOST_NOISE_RUNS = 32
_WANTED_VALUES = 2**23
"""Quantized values over all noise runs: about one in 300,000 steps under noise, so this gives some 25."""


@dataclasses.dataclass(frozen=True)
class Distance:
    """Difference of two lists of outputs, over all tokens that are not padding.

    Attributes:
        rms: Root of the mean square.
        p99: 99th percentile of the magnitude.
        largest: Largest magnitude; reported, never a limit: one value at a rounding edge decides it.
    """

    rms: float
    p99: float
    largest: float


def noise_runs(quantized_values: int) -> int:
    """Returns how many noise runs show enough steps, for a model that quantizes so many values in one run."""
    wanted = -(-_WANTED_VALUES // max(1, quantized_values))
    return int(np.clip(wanted, FEWEST_NOISE_RUNS, MOST_NOISE_RUNS))


def distance(got: Sequence[Arrays], want: Sequence[Arrays], feeds: Sequence[Arrays]) -> Distance:
    """Measures the difference between two runs on the same feeds.

    Args:
        got: Outputs by name, one mapping a feed.
        want: The same for the other run; both hold the same names and shapes.
        feeds: The inputs; ``attention_mask`` says which tokens of a ``[batch, sequence, ...]`` output count.
    """
    parts = []
    for outputs, reference, feed in zip(got, want, feeds, strict=True):
        mask = feed["attention_mask"].astype(bool)
        for name, value in reference.items():
            difference = outputs[name].astype(np.float64) - value
            per_token = value.ndim >= 3 and value.shape[:2] == mask.shape
            parts.append((difference[mask] if per_token else difference).ravel())
    magnitude = np.abs(np.concatenate(parts))
    if not np.isfinite(magnitude).all():
        return Distance(np.inf, np.inf, np.inf)
    return Distance(float(np.sqrt(np.mean(magnitude**2))), float(np.quantile(magnitude, 0.99)), float(magnitude.max()))


def check_distance(stage: str, got: Sequence[Arrays], want: Sequence[Arrays], feeds: Sequence[Arrays]) -> Check:
    """Reports how far a stage is from another model, which is a finding and not a fault."""
    found = distance(got, want, feeds)
    nothing = [{name: np.zeros_like(value) for name, value in outputs.items()} for outputs in want]
    share = found.rms / max(distance(want, nothing, feeds).rms, 1e-30)
    detail = f"compression moved the outputs by rms {found.rms:.2e}, which is {share:.1%} of their size"
    return Check(stage, "distance", True, detail, {"rms": found.rms, "share": share})


def check_end_to_end(stage: str, found: Distance, envelope: Sequence[Distance]) -> Check:
    """Applies the rule to one stage.

    Args:
        stage: Its name.
        found: Its distance from the reference.
        envelope: Distances of the noise runs from the reference.
    """
    rms_limit = FACTOR * max(run.rms for run in envelope)
    p99_limit = FACTOR * max(run.p99 for run in envelope)
    passed = found.rms <= rms_limit and found.p99 <= p99_limit
    detail = (
        f"rms {found.rms:.2e} (limit {rms_limit:.2e}), 99% within {found.p99:.2e} (limit {p99_limit:.2e}), "
        f"largest {found.largest:.2e}"
    )
    measured: dict[str, float | int | str] = {**dataclasses.asdict(found)}
    measured |= {"rms_limit": rms_limit, "p99_limit": p99_limit}
    return Check(stage, "end-to-end", passed, detail, measured)
