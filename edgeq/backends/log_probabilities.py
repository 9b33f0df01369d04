"""Decoders that tell how probable the tokens of a text are: ``input_ids`` in, ``log_probabilities`` out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.arrays import Arrays
from edgeq.targets.runtime.decoder import Decoder
from edgeq.targets.runtime.loader import Bundle


class TorchLogProbabilities:
    """A PyTorch decoder, which reads a text at once.

    Args:
        score: ``TorchDecoder.score`` of :mod:`edgeq.models`.
    """

    def __init__(self, score: Callable[[np.ndarray], np.ndarray]) -> None:
        self._score = score

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        return {"log_probabilities": self._score(feed["input_ids"])}


class BundleLogProbabilities:
    """A bundle on this machine, which reads a text step by step.

    Args:
        bundle: The bundle, loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        ids = feed["input_ids"]
        decoder = Decoder(self._bundle, batch=len(ids))
        steps = [
            _log_probability(decoder.append(ids[:, step : step + 1].tolist()), ids[:, step + 1])
            for step in range(ids.shape[1] - 1)
        ]
        return {"log_probabilities": np.stack(steps, axis=1)}


def _log_probability(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    likelihood: np.ndarray = np.take_along_axis(wide, chosen[:, None], axis=1)[:, 0]
    return likelihood - np.log(np.exp(wide).sum(axis=1))
