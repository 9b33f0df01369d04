"""The search of learning rates: short runs of each method, of which the best on the validation data counts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.claims.claim import Claim

SEARCH_SEED = 100
"""Seed of the search; those of the tables are others."""
QUANTIZER_RATIO = 0.4
"""Rate of what quantizers learn over that of the weights, where it has no search of its own: QuantGPT's two rates."""
RATE_SETTINGS = ("learning_rate", "quantizer_learning_rate")
"""Settings of a training that a search decides on."""
STARTED = ("weights", "embeddings")
"""Tables of a recipe whose ``start`` a search may decide on."""


class Rates(NamedTuple):
    """The rates of a run.

    Attributes:
        weights: Of the weights.
        quantizers: Of what quantizers learn, relative to its size; None for a fixed part of that of the weights.
        start: Where what they learn starts; None for what the recipe says.
    """

    weights: float
    quantizers: float | None = None
    start: str | float | None = None

    def __str__(self) -> str:
        quantizers = "" if self.quantizers is None else f" and {self.quantizers:g}"
        return f"{self.weights:g}{quantizers}" + ("" if self.start is None else f", start {self.start}")


@dataclasses.dataclass(frozen=True)
class Search:
    """The rates that are tried for one method.

    Attributes:
        runs: The short runs by their rates.
        metric: Figure that they are compared by.
        lower: Whether a lower figure is better.
    """

    runs: Mapping[Rates, Claim]
    metric: str
    lower: bool

    def missing(self, finished: Mapping[str, Any]) -> list[Claim]:
        """Returns the runs that are still to be done."""
        return [claim for claim in self.runs.values() if claim.name not in finished]

    def best(self, finished: Mapping[str, Any]) -> Rates:
        """Returns the best rates; runs that diverged are the worst."""

        def order(rates: Rates) -> float:
            value = finished[self.runs[rates].name].get(self.metric, float("nan"))
            if value != value:  # it diverged
                return float("inf")
            return float(value) if self.lower else -float(value)

        return min(self.runs, key=order)

    def figures(self, finished: Mapping[str, Any]) -> dict[Rates, float | None]:
        """Returns the figure of each pair of rates; None where the run diverged or is missing."""
        return {rates: finished.get(claim.name, {}).get(self.metric) for rates, claim in self.runs.items()}


def search(
    claim: Claim,
    *,
    rates: Sequence[float],
    epochs: float,
    metric: str,
    lower: bool,
    quantizer_rates: Sequence[float | None] = (None,),
    starts: Sequence[str | float | None] = (None,),
) -> Search:
    """Makes the search for a method.

    Args:
        claim: A run of the method, whatever its rate.
        rates: Rates of the weights to try.
        epochs: Passes over the data in each of the short runs.
        metric: Figure that they are compared by.
        lower: Whether a lower figure is better.
        quantizer_rates: Rates of what quantizers learn to try with each of them.
        starts: Where what they learn starts, to try with each pair.
    """
    runs = {}
    for rates_ in itertools.starmap(Rates, itertools.product(rates, quantizer_rates, starts)):
        name = "-".join(["search", claim.name, *(_in_name(part) for part in rates_ if part is not None)])
        short = dataclasses.replace(claim, name=name, epochs=epochs, seed=SEARCH_SEED, search=True)
        runs[rates_] = with_rates(short, rates_)
    return Search(runs, metric, lower)


def _in_name(part: float | str) -> str:
    return part if isinstance(part, str) else f"{part:g}"


def with_rates(claim: Claim, rates: Rates) -> Claim:
    """Returns a run with other learning rates, and with another start where the rates have one."""
    if rates.start is not None:
        started = {key: {**claim.changes.get(key, {}), "start": rates.start} for key in STARTED}
        claim = dataclasses.replace(claim, changes={**claim.changes, **started})
    return with_rate(claim, rates.weights, quantizers=rates.quantizers)


def with_rate(claim: Claim, rate: float, *, quantizers: float | None = None) -> Claim:
    """Returns a run with other learning rates."""
    own = float(f"{QUANTIZER_RATIO * rate:g}") if quantizers is None else quantizers
    rates = dict(zip(RATE_SETTINGS, (rate, own), strict=True))
    training = {**claim.changes.get("training", {}), **rates}
    return dataclasses.replace(claim, changes={**claim.changes, "training": training})
