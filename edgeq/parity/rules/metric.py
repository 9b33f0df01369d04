"""The task on the user's own data: a bundle may differ from PyTorch by no more than noise explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeq.parity.rules.decisions import SPARE, check_task
from edgeq.parity.rules.end_to_end import FACTOR, FEWEST_NOISE_RUNS
from edgeq.results import Check

AGREEMENT = 1e-3
"""How far a perplexity or a correlation may be from PyTorch's, relatively."""


def check_value(
    metric: str, reference: float, bundles: Mapping[str, float], *, under_noise: Callable[[int], float]
) -> tuple[Check, ...]:
    """Applies the rule to a metric that is one number: that of each bundle is PyTorch's, within a thousandth.

    On little data steps of quantizers do not average out. Then a bundle may differ by twice as much as PyTorch does
    from itself under noise of one ulp in front of every quantizer.

    Args:
        metric: Such as ``perplexity``.
        reference: PyTorch's, of the compressed model.
        bundles: Those of the bundles, by stage.
        under_noise: Measures PyTorch under noise of a given seed; called only if a bundle needs it.
    """

    def relative(value: float) -> float:
        return abs(value - reference) / abs(reference) if reference else abs(value)

    differences = {name: relative(value) for name, value in bundles.items()}
    limit = AGREEMENT
    # Written so that a value that is no number is not within a limit.
    if not all(difference <= AGREEMENT for difference in differences.values()):
        limit = max(limit, FACTOR * max(relative(under_noise(seed)) for seed in range(FEWEST_NOISE_RUNS)))
    return tuple(
        Check(
            name,
            "task",
            difference <= limit,
            f"the {metric} of the evaluation data differs from PyTorch's by {difference:.2%} (limit {limit:.2%})",
            {"relative": difference, "limit": limit},
        )
        for name, difference in differences.items()
    )


def check_labels(
    reference: np.ndarray, bundles: Mapping[str, np.ndarray], *, under_noise: Callable[[int], np.ndarray]
) -> tuple[Check, ...]:
    """Applies the rule to labels: they change no more often than under noise, plus two.

    Args:
        reference: PyTorch's label numbers, one an example.
        bundles: Those of the bundles, by stage.
        under_noise: Labels of PyTorch under noise of a given seed; called only if a bundle needs it.
    """
    needs_noise = any(int((labels != reference).sum()) > SPARE for labels in bundles.values())
    noisy = [under_noise(seed) for seed in range(FEWEST_NOISE_RUNS)] if needs_noise else [reference]
    return tuple(check_task(name, labels, reference, noisy) for name, labels in bundles.items())
