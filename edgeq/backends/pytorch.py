"""PyTorch: the module that is exported, called with arrays by name."""

from __future__ import annotations

from collections.abc import Callable

from edgeq.arrays import Arrays


class TorchBackend:
    """A PyTorch model.

    Args:
        model: ``TorchEncoder``, ``TorchDecoder`` or ``TorchPart`` of :mod:`edgeq.models`.
    """

    def __init__(self, model: Callable[..., Arrays]) -> None:
        self._model = model

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        return self._model(**feed)
