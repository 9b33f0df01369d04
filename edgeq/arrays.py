"""The one protocol of everything that computes a model from arrays; :mod:`edgeq.backends` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Arrays = dict[str, np.ndarray]
"""Inputs or outputs of a model by name."""


class Backend(Protocol):
    """A model somewhere. Every implementation is called with inputs by name and returns outputs by name."""

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch.

        Args:
            feed: int64 or float arrays by input name.

        Returns:
            Arrays by output name.
        """


def run_all(backend: Backend, feeds: Sequence[Arrays]) -> list[Arrays]:
    """Runs a backend on several batches; at once where it can do that, such as in one process of an emulator."""
    at_once = getattr(backend, "run_all", None)
    return at_once(feeds) if at_once is not None else [backend(feed) for feed in feeds]
