"""The search of learning rates: short runs of each method, of which the best on the validation data counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.claims.claim import Claim

SEARCH_SEED = 100
"""Seed of the search; those of the tables are others."""
# What quantizers learn gets 0.4 times the rate of the weights, the ratio of QuantGPT's two rates.
_QUANTIZER_RATIO = 0.4
RATE_SETTINGS = ("learning_rate", "quantizer_learning_rate")
"""Settings of a training that a search decides on."""


@dataclasses.dataclass(frozen=True)
class Search:
    """The rates that are tried for one method.

    Attributes:
        runs: The short runs by rate.
        metric: Figure that they are compared by.
        lower: Whether a lower figure is better.
    """

    runs: Mapping[float, Claim]
    metric: str
    lower: bool

    def missing(self, finished: Mapping[str, Any]) -> list[Claim]:
        """Returns the runs that are still to be done."""
        return [claim for claim in self.runs.values() if claim.name not in finished]

    def best(self, finished: Mapping[str, Any]) -> float:
        """Returns the best rate; runs that diverged are the worst."""

        def order(rate: float) -> float:
            value = finished[self.runs[rate].name].get(self.metric, float("nan"))
            if value != value:  # it diverged
                return float("inf")
            return float(value) if self.lower else -float(value)

        return min(self.runs, key=order)

    def figures(self, finished: Mapping[str, Any]) -> dict[float, float | None]:
        """Returns the figure of each rate; None where the run diverged or is missing."""
        return {rate: finished.get(claim.name, {}).get(self.metric) for rate, claim in self.runs.items()}


def search(claim: Claim, *, rates: Sequence[float], epochs: float, metric: str, lower: bool) -> Search:
    """Makes the search for a method.

    Args:
        claim: A run of the method, whatever its rate.
        rates: Rates to try.
        epochs: Passes over the data in each of the short runs.
        metric: Figure that they are compared by.
        lower: Whether a lower figure is better.
    """
    runs = {}
    for rate in rates:
        name = f"search-{claim.name}-{rate:g}"
        short = dataclasses.replace(claim, name=name, epochs=epochs, seed=SEARCH_SEED, search=True)
        runs[rate] = with_rate(short, rate)
    return Search(runs, metric, lower)


def with_rate(claim: Claim, rate: float) -> Claim:
    """Returns a run with another learning rate."""
    rates = dict(zip(RATE_SETTINGS, (rate, float(f"{_QUANTIZER_RATIO * rate:g}")), strict=True))
    training = {**claim.changes.get("training", {}), **rates}
    return dataclasses.replace(claim, changes={**claim.changes, "training": training})
