"""Paired tests between runs: the same examples, one model against another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from edgeq.deploy.accuracy import FLOAT, metric_loss
from edgeq.deploy.perplexity import perplexity_loss
from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.evaluation import Evaluation
from edgeq.evaluate.metrics import METRICS
from edgeq.evaluate.perplexity import Perplexity
from edgeq.results import Accuracy, Baseline, Difference, Loss, PairedTests, Predictions, RunRecord

PREDICTIONS_FILE = "predictions.json"
_SWAPS = 2000
_SIGNIFICANT = 0.05
_PERPLEXITY = "perplexity"


@dataclasses.dataclass(frozen=True)
class _Model:
    """A model of a comparison.

    Attributes:
        label: Name of the run's model and recipe.
        metric: A name of :data:`edgeq.evaluate.metrics.METRICS`, or ``perplexity``.
        value: Its value.
        data_sha256: Digest of the data it was measured on.
        measured: Its numbers for each example.
    """

    label: str
    metric: str
    value: float
    data_sha256: str
    measured: Evaluation | Perplexity


def compare(runs: Sequence[str | Path]) -> PairedTests:
    """Compares the compressed models of several runs with the first one; that of one run with its float model.

    Args:
        runs: Folders that ``edgeq deploy`` wrote, measured on the same data.

    Returns:
        The first model, and the difference of each other one from it.

    Raises:
        UsageError: If a folder is no finished run, nothing was measured, or runs were measured on different data.
        FormatError: If a result is damaged.
    """
    if not runs:
        raise UsageError("give one or more folders that 'edgeq deploy' wrote")
    read = [_read(Path(run)) for run in runs]
    models = [compressed for _, compressed in read] if len(runs) > 1 else [*read[0]]
    models = _with_own_labels(models, runs)
    first = models[0]
    for other, run in zip(models[1:], [*runs[1:], runs[0]], strict=False):
        if (other.metric, other.data_sha256) != (first.metric, first.data_sha256):
            raise UsageError(f"{runs[0]} and {run} were measured on different data; deploy both with one --eval-data")
    differences = tuple(_against(first, other) for other in models[1:])
    return PairedTests(first.metric, _count(first), Baseline(first.label, first.value), differences)


def _read(run: Path) -> tuple[_Model, _Model]:
    """Returns the float model and the compressed model of a run."""
    missing = [name for name in ("deploy.json", "accuracy.json") if not (run / name).is_file()]
    if missing:
        raise UsageError(f"{run} has no {missing[0]}; give folders that 'edgeq deploy' has finished")
    if not Accuracy.read(run / "accuracy.json").measured:
        raise UsageError(f"{run} was not measured; deploy it again with --eval-data FILE")
    if not (run / PREDICTIONS_FILE).is_file():
        raise UsageError(f"{run} has no {PREDICTIONS_FILE}, which an older edgeq did not write; deploy it again")
    found = Predictions.read(run / PREDICTIONS_FILE)
    about = RunRecord.read(run / "deploy.json").about
    try:
        # Bundles compute what the compressed checkpoint computes; the last stage is what is deployed.
        last = [stage for stage in found.stages if stage != FLOAT][-1]
        return (
            _model(f"{about.name}, float32", FLOAT, found),
            _model(f"{about.name}, {about.recipe.name}", last, found),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise FormatError(f"{run / PREDICTIONS_FILE} is damaged ({error!r}); deploy again") from error


def _model(label: str, stage: str, found: Predictions) -> _Model:
    answers = np.array(found.stages[stage], np.float64)
    if found.metric == _PERPLEXITY:
        if found.context is None:
            raise ValueError("a perplexity without its context")
        value = math.exp(-float(answers.mean()))
        measured = Perplexity(value, len(answers), None, 0, found.context, found.context, answers)
        return _Model(label, found.metric, value, found.data_sha256, measured)
    columns = len(METRICS[found.metric].columns)
    if answers.ndim != 2 or answers.shape[1] != columns:
        raise ValueError(f"numbers of shape {list(answers.shape)}, where {columns} an example are expected")
    evaluation = Evaluation(found.metric, answers)
    return _Model(label, found.metric, evaluation.value, found.data_sha256, evaluation)


def _with_own_labels(models: list[_Model], runs: Sequence[str | Path]) -> list[_Model]:
    labels = [one.label for one in models]
    if len(set(labels)) == len(labels) or len(runs) != len(models):
        return models
    return [
        dataclasses.replace(one, label=f"{one.label} ({Path(run).name})")
        for one, run in zip(models, runs, strict=True)
    ]


def _count(one: _Model) -> int:
    return one.measured.tokens if isinstance(one.measured, Perplexity) else one.measured.count


def _against(first: _Model, other: _Model) -> Difference:
    if isinstance(first.measured, Perplexity) and isinstance(other.measured, Perplexity):
        loss = perplexity_loss(first.measured, other.measured)
        difference, low, high = loss.value, loss.low, loss.high
        p = _flipped(_window_losses(first.measured), _window_losses(other.measured))
        good = difference < 0
    elif isinstance(first.measured, Evaluation) and isinstance(other.measured, Evaluation):
        loss = metric_loss(first.measured, other.measured)
        difference, low, high = -loss.value, -loss.high, -loss.low
        p = (_mcnemar if METRICS[first.metric].counts else _exchanged)(first.measured, other.measured)
        good = difference > 0
    else:
        raise FormatError(f"{first.label} and {other.label} hold results of different kinds; deploy both again")
    tells = p < _SIGNIFICANT and not low <= 0.0 <= high
    told: Literal["better", "worse"] = "better" if good else "worse"
    verdict: Literal["better", "worse", "cannot tell"] = told if tells else "cannot tell"
    needed = None if tells else _needed(_count(first), loss)
    return Difference(other.label, other.value, difference, low, high, p, verdict, needed)


def _needed(count: int, loss: Loss) -> int | None:
    """The width of an interval falls with the root of the number of examples."""
    if loss.value == 0 or not math.isfinite(loss.value):
        return None
    return max(count + 1, math.ceil(count * ((loss.high - loss.low) / 2 / abs(loss.value)) ** 2))


def _window_losses(measured: Perplexity) -> np.ndarray:
    starts = range(0, measured.tokens, measured.context)
    return np.array([-measured.log_probabilities[start : start + measured.context].sum() for start in starts])


def _flipped(first: np.ndarray, other: np.ndarray) -> float:
    """Exchanges the two losses of windows at random."""
    differences = other - first
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_SWAPS, len(differences)))
    drawn = np.abs(signs @ differences)
    return float((1 + (drawn >= abs(differences.sum()) * (1 - 1e-12)).sum()) / (_SWAPS + 1))


def _mcnemar(first: Evaluation, other: Evaluation) -> float:
    """Only examples that one of the two answers rightly and the other wrongly tell them apart."""
    right = [one.rows[:, 0] > 0 for one in (first, other)]
    gained, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    return 1.0 if gained + lost == 0 else float(stats.binomtest(gained, gained + lost).pvalue)


def _exchanged(first: Evaluation, other: Evaluation) -> float:
    """Exchanges the two models' answers to examples at random."""
    own, theirs, of = first.rows, other.rows, METRICS[first.metric].of
    found = abs(first.value - other.value)
    generator = np.random.default_rng(0)
    larger = 0
    for _ in range(_SWAPS):
        swap = generator.random((len(own), 1)) < 0.5
        drawn = abs(of(np.where(swap, theirs, own)) - of(np.where(swap, own, theirs)))
        larger += drawn >= found * (1 - 1e-12)
    return (1 + larger) / (_SWAPS + 1)
