"""The order of the examples: what a step reads depends on the seed and the number of the step alone."""

from __future__ import annotations

import math

import numpy as np

_BATCHES_SORTED_TOGETHER = 50


class BatchOrder:
    """Batches of examples of similar length, in an order that is another one in each epoch.

    Each epoch shuffles the examples, sorts runs of 50 batches by length, so that little is padded, and shuffles
    the batches. Examples that do not fill the last batch are left out of that epoch.

    Args:
        lengths: Tokens of each example, ``[examples]``.
        batch_size: Examples of a batch; fewer only where there are no more.
        seed: Seed of the order.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, *, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = min(batch_size, len(self._lengths))
        self._seed = seed
        self._epoch = -1
        self._batches = np.empty((0, 0), np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self._lengths) // self._batch_size

    def steps(self, epochs: float) -> int:
        """Returns the batches of a number of epochs, at least one."""
        return max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))

    def at(self, step: int) -> np.ndarray:
        """Returns the numbers of the examples of a step, int64 ``[batch]``; steps count from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = self._of_epoch(epoch), epoch
        batch: np.ndarray = self._batches[position]
        return batch

    def _of_epoch(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(len(self._lengths))
        run = _BATCHES_SORTED_TOGETHER * self._batch_size
        for start in range(0, len(order), run):
            part = order[start : start + run]
            order[start : start + run] = part[np.argsort(self._lengths[part], kind="stable")]
        batches = order[: self.steps_per_epoch * self._batch_size].reshape(-1, self._batch_size)
        return batches[random.permutation(len(batches))]
