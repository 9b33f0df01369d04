"""The caches of a decoder: allocated once for a batch, changed in place by compiled code."""

from __future__ import annotations

from edgeq.targets.runtime.schema import Manifest
from edgeq.targets.runtime.session import Model, Session


class State:
    """Keys and values of a batch of sequences, for every layer.

    What a slot holds that no sequence has reached yet is never read as a number, so old contents do no harm.

    Args:
        model: The bundle.
        manifest: Its manifest.
        batch: Number of sequences.
        threads: Threads of the kernels.

    Attributes:
        batch: Number of sequences.
        session: Memory and threads of calls on these caches.
    """

    def __init__(self, model: Model, manifest: Manifest, batch: int, *, threads: int) -> None:
        self.session = Session(model, threads=threads)
        self.batch = batch
        self.session.reset(batch)
        self._arrays = self.session.state(len(manifest.state))

    @property
    def bytes(self) -> int:
        """Memory of all caches; the system hands out a page when it is first written."""
        return sum(array.nbytes for array in self._arrays)
