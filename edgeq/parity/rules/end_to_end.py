"""End to end: how far a stage is from PyTorch, against how far PyTorch is from itself under noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from edgeq.backends import Arrays
from edgeq.formats.tasks import TASKS
from edgeq.parity.rules.rule import Outputs, Rule, StageOutputs
from edgeq.results import Check

T = TypeVar("T")

FACTOR = 2.0
"""A stage may differ by this multiple of the envelope: its own roundings come on top of the noise's."""
FEWEST_NOISE_RUNS = 8
MOST_NOISE_RUNS = 128
_FEWEST_OF_SMALL_MODELS = 32
_WANTED_VALUES = 2**23
"""Quantized values over all noise runs: about one in 300,000 steps under noise, so this gives some 25."""
_OF_TOKENS = frozenset(TASKS["answer"].outputs)
"""Outputs of one number a token."""
_STANDS_OUT = 10.0
"""A run whose rms is this multiple of the smallest one's has stepped; plain float noise varies far less."""


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


class EndToEnd(Rule):
    """A stage differs from PyTorch by no more than twice what noise makes of PyTorch itself."""

    name = "end-to-end"
    order = 0

    def __init__(self, reference: Outputs) -> None:
        super().__init__(reference)
        self._whole: list[dict[str, Distance]] = []
        self._beginning: list[dict[str, Distance]] = []

    def watch(self, whole: StageOutputs, beginning: StageOutputs) -> Sequence[float]:
        """See :meth:`Rule.watch`."""
        self._whole.append(_distances(whole))
        self._beginning.append(_distances(beginning))
        return [found.rms for found in self._whole[-1].values()]

    def of_stage(self, stage: StageOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_stage`."""
        runs = self._whole if stage.is_whole else self._beginning
        checks = []
        for part, found in _distances(stage).items():
            envelope, floor = [run[part] for run in runs], self._floor(part)
            checks.append(check_end_to_end(f"{stage.name} {part}".strip(), found, envelope, floor=floor))
        return checks

    def _floor(self, part: str) -> float:
        """What float arithmetic does to the states in the middle of a model; nothing for its results."""
        if not part:
            return 0.0
        (first,) = self.reference.parts[part].arrays[0].values()
        return float_error(first.shape[-1], float(first.std()))


def _distances(stage: StageOutputs) -> dict[str, Distance]:
    want = stage.want.parts
    return {name: distance(part.arrays, want[name].arrays, part.feeds) for name, part in stage.got.parts.items()}


def fewest_noise_runs(quantized_values: int) -> int:
    """Returns how many noise runs are made at least, for a model that quantizes so many values in one run."""
    if quantized_values == 0:  # nothing can step: all runs are alike
        return FEWEST_NOISE_RUNS
    return int(np.clip(-(-_WANTED_VALUES // quantized_values), FEWEST_NOISE_RUNS, _FEWEST_OF_SMALL_MODELS))


def noise_runs(
    run: Callable[[int], T],
    rms: Callable[[T], Sequence[float]],
    *,
    quantized_values: int,
    fewest: int = FEWEST_NOISE_RUNS,
    most: int = MOST_NOISE_RUNS,
) -> list[T]:
    """Runs the reference under noise until its runs say what a step looks like.

    In a small model steps are rare, and most are absorbed by the next quantizer; an envelope of runs
    without any would fail a stage for its first one. Such a model is run on until a run stands out, in each
    of the outputs that are judged.

    Args:
        run: Runs the reference under noise of a given seed; returns the outputs, or what is kept of them.
        rms: How far a run is from the reference without noise, for each output that is judged by itself.
        quantized_values: How many values one run quantizes.
        fewest: Fewest runs of any model.
        most: Most runs of a model that shows no step.

    Returns:
        What each run returned: ``fewest`` for a model of usual size, at most ``most``.
    """
    wanted = fewest_noise_runs(quantized_values)
    runs: list[T] = []
    distances: list[Sequence[float]] = []

    def enough() -> bool:
        if len(runs) < max(fewest, wanted):
            return False
        settled = wanted == FEWEST_NOISE_RUNS or len(runs) >= most
        return settled or all(max(column) > _STANDS_OUT * min(column) for column in zip(*distances, strict=True))

    while not enough():
        runs.append(run(len(runs)))
        distances.append(rms(runs[-1]))
    return runs


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
            per_token = (value.ndim >= 3 or name in _OF_TOKENS) and value.shape[:2] == mask.shape
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


def float_error(width: int, size: float) -> float:
    """Bounds what float32 arithmetic alone may do to values of some size: ``(width + 3) 2**-24 size``.

    Args:
        width: Terms of the longest sum behind a value.
        size: Their magnitude.
    """
    return (width + 3) * 2.0**-24 * size


def check_end_to_end(
    stage: str, found: Distance, envelope: Sequence[Distance], *, floor: float = 0.0
) -> Check:
    """Applies the rule to one stage.

    Args:
        stage: Its name.
        found: Its distance from the reference.
        envelope: Distances of the noise runs from the reference.
        floor: Least limit. Noise in front of a quantizer is mostly rounded away, so that an envelope in the middle
            of a small model may be narrower than what float arithmetic after the last quantizer does.
    """
    rms_limit = max(floor, FACTOR * max(run.rms for run in envelope))
    p99_limit = max(floor, FACTOR * max(run.p99 for run in envelope))
    passed = found.rms <= rms_limit and found.p99 <= p99_limit
    detail = (
        f"rms {found.rms:.2e} (limit {rms_limit:.2e}), 99% within {found.p99:.2e} (limit {p99_limit:.2e}), "
        f"largest {found.largest:.2e}"
    )
    measured: dict[str, float | int | str] = {**dataclasses.asdict(found)}
    measured |= {"rms_limit": rms_limit, "p99_limit": p99_limit}
    return Check(stage, "end-to-end", passed, detail, measured)
