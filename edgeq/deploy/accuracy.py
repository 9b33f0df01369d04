"""The task stage: float model, compressed model and every bundle that runs here, on the same examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.evaluate.data import EvaluationSet
from edgeq.evaluate.tasks import Encode, Evaluation, evaluate
from edgeq.models.inference import TorchEncoder
from edgeq.parity.rules.metric import check_labels, check_value
from edgeq.progress import Progress
from edgeq.quant.activation import ulp_noise
from edgeq.results import Accuracy, Check, Loss, Score
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
    data: EvaluationSet,
    task: str | None = None,
    progress: Progress,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> Accuracy:
    """Evaluates the stages of a run.

    Args:
        source: The float checkpoint.
        checkpoint: The compressed checkpoint.
        bundles: Bundles for this machine by target name; others are bit-identical to them, as parity proves.
        data: The examples.
        task: What was made of the float checkpoint; see :func:`edgeq.checkpoint.load_checkpoint`.
        progress: Told the progress of each evaluation.
        keep: Given what each stage said of each example, as JSON values.

    Returns:
        The metric of each stage, the loss of each against the float model, and whether every bundle agrees with
        PyTorch.
    """
    float_model = load_checkpoint(source, task=task)
    compressed = load_checkpoint(checkpoint)
    longest = min(float_model.adapter.max_positions, read_model_info(source).max_length or 1 << 40)
    encoders: dict[str, Encode] = {
        FLOAT: TorchEncoder(float_model.model, float_model.adapter),
        COMPRESSED: TorchEncoder(compressed.model, compressed.adapter),
    }
    for name, folder in bundles.items():
        bundle = load(folder)
        longest = min(longest, bundle.manifest.model.max_length or longest)
        encoders[f"bundle {name}"] = _encoder(bundle)
    results = {
        name: _evaluate(encode, float_model, data, longest, progress=_named(name, progress))
        for name, encode in encoders.items()
    }
    targets = [example.target for example in data.examples]
    reference, labels = results[FLOAT], float_model.adapter.labels

    def under_noise(seed: int) -> Evaluation:
        with ulp_noise(seed):
            return _evaluate(encoders[COMPRESSED], float_model, data, longest, progress=_named("noise", progress))

    if keep is not None:
        numbers = targets if reference.metric == "spearman" else _numbers(targets, labels).tolist()
        stages = {name: entry.predictions.tolist() for name, entry in results.items()}
        keep({"metric": reference.metric, "targets": numbers, "stages": stages})
    return Accuracy(
        measured=True,
        data=str(data.path),
        examples=len(data.examples),
        metric=reference.metric,
        stages={name: Score(entry.value, entry.pearson) for name, entry in results.items()},
        losses={
            name: metric_loss(reference, entry, targets, labels=labels)
            for name, entry in results.items()
            if name != FLOAT
        },
        checks=_checks(results, under_noise=under_noise),
    )


def _checks(results: Mapping[str, Evaluation], *, under_noise: Callable[[int], Evaluation]) -> tuple[Check, ...]:
    """Parity rules on the evaluation data."""
    reference = results[COMPRESSED]
    bundles = {name: entry for name, entry in results.items() if name not in (FLOAT, COMPRESSED)}
    if reference.metric == "accuracy":
        labels = {name: entry.predictions for name, entry in bundles.items()}
        return check_labels(reference.predictions, labels, under_noise=lambda seed: under_noise(seed).predictions)
    values = {name: entry.value for name, entry in bundles.items()}
    return check_value(reference.metric, reference.value, values, under_noise=lambda seed: under_noise(seed).value)


def _encoder(bundle: Bundle) -> Encode:
    names = {spec.name for spec in bundle.manifest.inputs}  # not all models know token types

    def encode(ids: np.ndarray, mask: np.ndarray, types: np.ndarray, **masks: np.ndarray) -> dict[str, np.ndarray]:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, **masks}
        return bundle.run({name: values for name, values in given.items() if name in names})

    return encode


def metric_loss(
    reference: Evaluation, result: Evaluation, targets: Sequence[float | str], *, labels: Sequence[str] = ()
) -> Loss:
    """Compares two evaluations of the same examples by resampling the examples.

    Args:
        reference: The float model's.
        result: The other model's.
        targets: What the examples say, in order.
        labels: Label names, for accuracy.
    """
    truth = _numbers(targets, labels) if reference.metric == "accuracy" else np.array(targets, np.float64)
    generator = np.random.default_rng(0)
    losses = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        chosen = generator.integers(0, len(truth), len(truth))
        pair = [metric_of(r.metric, r.predictions[chosen], truth[chosen]) for r in (reference, result)]
        losses[index] = pair[0] - pair[1]
    tail = (1.0 - _CONFIDENCE) / 2.0
    low, high = np.quantile(losses, [tail, 1.0 - tail])
    retained = result.value / reference.value if reference.value > 0 else float("nan")
    return Loss(reference.value - result.value, float(low), float(high), retained)


def metric_of(metric: str, predictions: np.ndarray, truth: np.ndarray) -> float:
    """Returns the metric of some examples; 0 where predictions or scores do not differ, which rank nothing."""
    if metric == "accuracy":
        return float((predictions == truth).mean())
    if np.ptp(truth) == 0 or np.ptp(predictions) == 0 or not np.isfinite(predictions).all():
        return 0.0  # a resample without variation ranks nothing
    ranks = [stats.rankdata(values) for values in (predictions, truth)]
    return float(np.corrcoef(*ranks)[0, 1])


def _numbers(targets: Sequence[float | str], labels: Sequence[str]) -> np.ndarray:
    return np.array([_label(str(target), labels) for target in targets])


def _label(label: str, labels: Sequence[str]) -> int:
    return list(labels).index(label) if label in labels else int(label)


def _evaluate(
    encode: Encode, model: Checkpoint, data: EvaluationSet, longest: int, *, progress: Progress
) -> Evaluation:
    return evaluate(
        encode,
        model.tokenizer,
        data,
        sentence=model.sentence,
        labels=model.adapter.labels,
        max_length=longest,
        progress=progress,
    )


def _named(stage: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{what} {stage}", done, total)
