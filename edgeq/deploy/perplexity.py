"""The task stage of models that generate text: the perplexity of every stage on the same tokens of one text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeq.backends import Backend
from edgeq.backends.log_probabilities import BundleLogProbabilities, TorchLogProbabilities
from edgeq.checkpoint import Checkpoint, load_checkpoint, load_tokenizer
from edgeq.deploy.accuracy import COMPRESSED, FLOAT
from edgeq.errors import UnsupportedError
from edgeq.evaluate.data import TextFile
from edgeq.evaluate.perplexity import Perplexity, evaluate_perplexity, same_tokens
from edgeq.memory import give_back
from edgeq.models import GenerativeAdapter, TorchDecoder
from edgeq.models.cache import baseline_dtype
from edgeq.parity.rules.metric import check_value
from edgeq.progress import Progress
from edgeq.results import Accuracy, Loss, Predictions, Score
from edgeq.rounding import ulp_noise
from edgeq.targets.runtime.loader import load

MOST_TOKENS = 4096
"""Tokens that are predicted: a bundle makes a step for each."""
_METRIC = "perplexity"
_WINDOW = 128
_WINDOWS_AT_A_TIME = 8
_RESAMPLES = 1000
_CONFIDENCE = 0.95
_OTHER_TOKENS = (
    "{path} holds tokens that the recipe's [vocabulary] leaves out, and perplexities over different tokens cannot be "
    "compared; measure on a text whose tokens stay"
)


def measure_perplexity(
    source: Path,
    checkpoint: Path,
    bundles: Mapping[str, Path],
    *,
    text: TextFile,
    cache_dtype: torch.dtype,
    task: str | None = None,
    progress: Progress,
    keep: Callable[[Predictions], None] | None = None,
) -> Accuracy:
    """Measures the stages of a run on the beginning of a text.

    Args:
        source: The float checkpoint.
        checkpoint: The compressed checkpoint.
        bundles: Bundles for this machine by target name; others are bit-identical to them, as parity proves.
        text: The text.
        cache_dtype: Type of the caches of the run; see :func:`edgeq.models.cache.baseline_dtype` for the float model.
        task: What was made of the float checkpoint; see :func:`edgeq.checkpoint.load_checkpoint`.
        progress: Told the progress of each measurement.
        keep: Given the log-probability of each token at each stage.

    Returns:
        The perplexity of each stage, how much of it compression cost, and whether every bundle agrees with PyTorch.

    Raises:
        UsageError: If the text has too few tokens.
        UnsupportedError: If the model does not generate text.
    """
    loaded = {name: load(folder) for name, folder in bundles.items()}
    float_model = load_checkpoint(source, task=task)
    if not same_tokens(float_model.tokenizer, load_tokenizer(checkpoint), text.content):
        return Accuracy(measured=False, reason=_OTHER_TOKENS.format(path=text.path))
    contexts = [bundle.generation.context for bundle in loaded.values()]
    window = min([_WINDOW, float_model.adapter.max_positions, *contexts])

    def measure(stage: str, model: Backend, tokenizer: Any) -> Perplexity:
        limits = {"context": window, "max_tokens": MOST_TOKENS, "batch_size": _WINDOWS_AT_A_TIME}
        return evaluate_perplexity(model, tokenizer, text, progress=_named(stage, progress), **limits)

    # One model is gone before the next one is there.
    of_floats = _torch_model(float_model, baseline_dtype(cache_dtype))
    found = {FLOAT: measure(FLOAT, of_floats, float_model.tokenizer)}
    del float_model, of_floats
    give_back()
    compressed = load_checkpoint(checkpoint)
    tokenizer, reference = compressed.tokenizer, _torch_model(compressed, cache_dtype)
    models: dict[str, Backend] = {COMPRESSED: reference}
    models |= {f"bundle {name}": BundleLogProbabilities(bundle) for name, bundle in loaded.items()}
    found |= {name: measure(name, model, tokenizer) for name, model in models.items()}

    def under_noise(seed: int) -> float:
        with ulp_noise(seed):
            return measure(COMPRESSED, reference, tokenizer).value

    if keep is not None:
        keep(_predictions(found, window))
    return _accuracy(text, found, under_noise)


def _accuracy(text: TextFile, found: Mapping[str, Perplexity], under_noise: Callable[[int], float]) -> Accuracy:
    reference = found[FLOAT]
    bundle_values = {name: entry.value for name, entry in found.items() if name not in (FLOAT, COMPRESSED)}
    return Accuracy(
        measured=True,
        data=str(text.path),
        examples=reference.tokens,
        unit="tokens",
        metric=_METRIC,
        stages={name: Score(entry.value) for name, entry in found.items()},
        losses={name: perplexity_loss(reference, entry) for name, entry in found.items() if name != FLOAT},
        checks=check_value(_METRIC, found[COMPRESSED].value, bundle_values, under_noise=under_noise),
    )


def _predictions(found: Mapping[str, Perplexity], window: int) -> Predictions:
    stages = {name: tuple(float(f"{one:.7g}") for one in entry.log_probabilities) for name, entry in found.items()}
    return Predictions(_METRIC, stages, context=window)


def perplexity_loss(reference: Perplexity, result: Perplexity) -> Loss:
    """Compares two measurements of the same tokens by resampling the windows.

    Args:
        reference: The float model's.
        result: The other model's.

    Returns:
        The increase of the perplexity with its interval, and the float model's perplexity over this one's.
    """
    starts = range(0, reference.tokens, reference.context)
    sums = [
        np.array([-each.log_probabilities[start : start + each.context].sum(dtype=np.float64) for start in starts])
        for each in (reference, result)
    ]
    counts = np.array([min(reference.context, reference.tokens - start) for start in starts])
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, len(counts), (_RESAMPLES, len(counts)))
    drawn = [np.exp(part[chosen].sum(axis=1) / counts[chosen].sum(axis=1)) for part in sums]
    increases = drawn[1] - drawn[0]
    tail = (1.0 - _CONFIDENCE) / 2.0
    low, high = np.quantile(increases, [tail, 1.0 - tail], method="nearest")
    return Loss(result.value - reference.value, float(low), float(high), reference.value / result.value)


def _torch_model(checkpoint: Checkpoint, cache_dtype: torch.dtype) -> TorchLogProbabilities:
    if not isinstance(checkpoint.adapter, GenerativeAdapter):
        raise UnsupportedError(f"{checkpoint.adapter.architecture} does not generate text: it has no perplexity")
    decoder = TorchDecoder(checkpoint.model, checkpoint.adapter, cache_dtype=cache_dtype)
    return TorchLogProbabilities(decoder.score)


def _named(stage: str, progress: Progress) -> Progress:
    return lambda what, done, total: progress(f"{what} {stage}", done, total)
