"""The latencies of a run: ``profile.json``."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from edgeq.results.base import STRICT, Result, plain


@dataclasses.dataclass(frozen=True)
class Timing:
    """Summary of one program's latencies, in seconds.

    Attributes:
        median: Half of the calls were faster.
        p95: 95 of 100 calls were faster.
        spread: Median absolute deviation from the median.
        fastest: The smallest latency.
        calls: How many calls were timed.
    """

    median: float
    p95: float
    spread: float
    fastest: float
    calls: int

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class SpeedupClaim:
    """What may be said of a bundle's speed against a baseline.

    Attributes:
        ratio: Baseline time / bundle time; None where nothing may be claimed.
        low: Lower end of its confidence interval, or None.
        high: Upper end, or None.
        confidence: Probability that the interval holds the true median ratio.
        rounds: Number of rounds.
        beyond_noise: Whether a difference may be claimed.
        busy: Whether none may be because other programs took too much of the processors.
        sentence: The claim in words.
    """

    ratio: float | None
    low: float | None
    high: float | None
    confidence: float
    rounds: int
    beyond_noise: bool
    busy: bool
    sentence: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class KernelShare:
    """Time of one kernel in one call of the model: calls, seconds, and share of all kernels' time."""

    name: str
    calls: int
    seconds: float
    share: float

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Profile:
    """Latencies of one bundle and of the baselines.

    Attributes:
        bundle: Path of the bundle.
        target: Name of its target.
        sequence: Tokens in each text; of a decoder one step is timed, with so many tokens in the cache.
        batch: Texts in a call.
        threads: Threads of bundle and baselines.
        rounds: Rounds in which bundle and baselines took turns.
        timings: Seconds a call, of the bundle (``edgeq``) and of each baseline.
        speedups: Of the bundle over each baseline.
        operators: Kernels of the bundle, longest first.
        missing: Baselines that were not measured, with the reason.
        machine: Processor, governor, load and versions.
        others: Share of the machine's processor time that other programs took meanwhile; None if unknown.
        step: Whether a call is a decoder's step.
        source: Tokens of each encoder input of an encoder-decoder before the step; 0 for other models.
        reading: Whether a call is the encoder's.
    """

    bundle: str
    target: str
    sequence: int
    batch: int
    threads: int
    rounds: int
    timings: dict[str, Timing]
    speedups: dict[str, SpeedupClaim]
    operators: tuple[KernelShare, ...]
    missing: dict[str, str]
    machine: dict[str, str]
    others: float | None
    step: bool = False
    source: int = 0
    reading: bool = False

    __pydantic_config__ = STRICT

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        table: dict[str, Any] = plain(self)
        return table


@dataclasses.dataclass(frozen=True)
class RunProfile(Result):
    """``profile.json``: latencies on this machine by bundle, and why those of the others were not measured."""

    format: Literal["edgeq-profile"] = dataclasses.field(default="edgeq-profile", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT

    measured: dict[str, Profile]
    not_measured: dict[str, str]
