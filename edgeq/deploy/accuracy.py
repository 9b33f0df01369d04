"""The task stage: float model, compressed model and every bundle that runs here, on the same examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from edgeq.backends import Backend
from edgeq.backends.bundles import LoadedBundle
from edgeq.backends.pytorch import TorchBackend
from edgeq.checkpoint import Checkpoint, load_checkpoint, read_adapter
from edgeq.evaluate.evaluation import Evaluation, EvaluationData
from edgeq.evaluate.metrics import METRICS
from edgeq.evaluate.tasks import evaluate
from edgeq.memory import give_back
from edgeq.models.inference import TorchEncoder
from edgeq.parity.rules.metric import check_labels, check_value
from edgeq.progress import Progress
from edgeq.results import Accuracy, Check, Loss, Predictions, Score
from edgeq.rounding import ulp_noise
from edgeq.targets.bundle.model_info import read_model_info
from edgeq.targets.runtime.loader import Bundle, load

FLOAT = "torch float32"
COMPRESSED = "torch compressed"

_RESAMPLES = 1000
_CONFIDENCE = 0.95


def measure_accuracy(
    source: Path,
    checkpoint: Path,
    bundles: Mapping[str, Path],
    *,
    data: EvaluationData,
    task: str | None = None,
    progress: Progress,
    keep: Callable[[Predictions], None] | None = None,
) -> Accuracy:
    """Evaluates the stages of a run.

    Args:
        source: The float checkpoint.
        checkpoint: The compressed checkpoint.
        bundles: Bundles for this machine by target name; others are bit-identical to them, as parity proves.
        data: The examples.
        task: What was made of the float checkpoint; see :func:`edgeq.checkpoint.load_checkpoint`.
        progress: Told the progress of each evaluation.
        keep: Given what each stage made of each example.

    Returns:
        The metric of each stage, the loss of each against the float model, and whether every bundle agrees with
        PyTorch.
    """
    loaded = {name: load(folder) for name, folder in bundles.items()}
    longest = _longest(source, task, loaded)

    def evaluate_model(stage: str, model: Backend, checkpoint: Checkpoint) -> Evaluation:
        return _evaluate(model, checkpoint, data, longest, progress=_named(stage, progress))

    # One model is gone before the next one is there: a large tokenizer takes as much as half of its model.
    float_model = load_checkpoint(source, task=task)
    results = {FLOAT: evaluate_model(FLOAT, _torch(float_model), float_model)}
    del float_model
    give_back()
    compressed = load_checkpoint(checkpoint, task=task)
    models: dict[str, Backend] = {COMPRESSED: _torch(compressed)}
    models |= {f"bundle {name}": LoadedBundle(bundle) for name, bundle in loaded.items()}
    # Tokens of a model whose vocabulary was pruned have other numbers: those of the float model are its own.
    results |= {name: evaluate_model(name, model, compressed) for name, model in models.items()}
    reference = results[FLOAT]

    def under_noise(seed: int) -> Evaluation:
        with ulp_noise(seed):
            return evaluate_model("noise", models[COMPRESSED], compressed)

    if keep is not None:
        stages = {name: tuple(map(tuple, entry.rows.tolist())) for name, entry in results.items()}
        keep(Predictions(reference.metric, stages))
    return Accuracy(
        measured=True,
        data=str(data.path),
        examples=reference.count,
        unit=data.unit,
        metric=reference.metric,
        stages={name: Score(entry.value, entry.others) for name, entry in results.items()},
        losses={name: metric_loss(reference, entry) for name, entry in results.items() if name != FLOAT},
        checks=_checks(results, under_noise=under_noise),
    )


def _longest(source: Path, task: str | None, bundles: Mapping[str, Bundle]) -> int:
    """The most tokens that all of them read."""
    own = read_adapter(source, task=task).max_positions
    limits = [read_model_info(source).max_length, *(bundle.manifest.model.max_length for bundle in bundles.values())]
    return min([own, *(limit for limit in limits if limit)])


def _torch(checkpoint: Checkpoint) -> TorchBackend:
    return TorchBackend(TorchEncoder(checkpoint.model, checkpoint.adapter))


def _checks(results: Mapping[str, Evaluation], *, under_noise: Callable[[int], Evaluation]) -> tuple[Check, ...]:
    """Parity rules on the evaluation data: on decisions where the task has them, or else on the metric."""
    reference = results[COMPRESSED]
    bundles = {name: entry for name, entry in results.items() if name not in (FLOAT, COMPRESSED)}
    if reference.decisions is not None:
        decided = {name: _decisions(entry) for name, entry in bundles.items()}
        return check_labels(reference.decisions, decided, under_noise=lambda seed: _decisions(under_noise(seed)))
    values = {name: entry.value for name, entry in bundles.items()}
    return check_value(reference.metric, reference.value, values, under_noise=lambda seed: under_noise(seed).value)


def _decisions(entry: Evaluation) -> np.ndarray:
    if entry.decisions is None:
        raise ValueError(f"{entry.metric} has no decisions")
    return entry.decisions


def metric_loss(reference: Evaluation, result: Evaluation) -> Loss:
    """Compares two evaluations of the same examples by resampling the examples.

    Args:
        reference: The float model's.
        result: The other model's.
    """
    metric, count = METRICS[reference.metric], reference.count
    generator = np.random.default_rng(0)
    losses = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        chosen = generator.integers(0, count, count)
        losses[index] = metric.of(reference.rows[chosen]) - metric.of(result.rows[chosen])
    tail = (1.0 - _CONFIDENCE) / 2.0
    low, high = np.quantile(losses, [tail, 1.0 - tail])
    retained = result.value / reference.value if reference.value > 0 else None
    return Loss(reference.value - result.value, float(low), float(high), retained)


def _evaluate(
    model: Backend, checkpoint: Checkpoint, data: EvaluationData, longest: int, *, progress: Progress
) -> Evaluation:
    return evaluate(
        model,
        checkpoint.tokenizer,
        data,
        sentence=checkpoint.sentence,
        labels=checkpoint.adapter.labels,
        max_length=longest,
        progress=progress,
    )


def _named(stage: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{what} {stage}", done, total)
