"""The caches of a decoder: allocated once for a batch, changed in place by compiled code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeq.targets.runtime.schema import LANES, SOURCE_STATE, Manifest
from edgeq.targets.runtime.session import Model, Session

_IN_VECTORS = {"context_blocks", "source_context_blocks"}


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
        self._tokens_per_slot = [LANES if _IN_VECTORS.intersection(spec.shape) else 1 for spec in manifest.state]
        self._of_source = [spec.name.startswith(SOURCE_STATE) for spec in manifest.state]
        self._use_rows(batch)

    @property
    def bytes(self) -> int:
        """Memory of all caches; the system hands out a page when it is first written."""
        return sum(array.nbytes for array in self._arrays)

    def keep(self, rows: Sequence[int], lengths: Sequence[int], source_lengths: Sequence[int] | None = None) -> None:
        """Keeps some sequences, closed up, and forgets the others.

        Args:
            rows: Ascending row numbers.
            lengths: Tokens that each of ``rows`` holds; only those are moved.
            source_lengths: Tokens of the source of each, for an encoder-decoder.
        """
        self._take(rows, lengths, source_lengths or lengths)

    def repeat_source(self, batch: int, length: int) -> None:
        """Gives the only source of the state to a number of sequences, which are empty.

        Args:
            batch: Number of sequences.
            length: Tokens of the source.
        """
        self._take([0] * batch, [0] * batch, [length] * batch)

    def _take(self, rows: Sequence[int], lengths: Sequence[int], source_lengths: Sequence[int]) -> None:
        """Starts anew with sequences that hold what these rows held."""
        kept = []
        for array, tokens, of_source in self._caches():
            used = [-(-length // tokens) for length in (source_lengths if of_source else lengths)]
            kept.append([array[row, :, :count].copy() for row, count in zip(rows, used, strict=True)])
        self._use_rows(len(rows))
        for array, parts in zip(self._arrays, kept, strict=True):
            for row, part in enumerate(parts):
                array[row, :, : part.shape[1]] = part

    def reorder(self, rows: Sequence[int], length: int) -> None:
        """Makes each sequence go on from another one; sources stay where they are.

        Args:
            rows: For each sequence the one whose tokens it takes over; one may be taken over by several.
            length: Tokens that every sequence holds.
        """
        moved = [to for to, row in enumerate(rows) if to != row]
        if not moved:
            return
        sources = [rows[to] for to in moved]
        for array, tokens, of_source in self._caches():
            if not of_source:
                used = -(-length // tokens)
                array[moved, :, :used] = array[sources, :, :used]  # the right side is a copy, so rows may swap

    def _caches(self) -> Iterator[tuple[np.ndarray, int, bool]]:
        return zip(self._arrays, self._tokens_per_slot, self._of_source, strict=True)

    def _use_rows(self, batch: int) -> None:
        self.batch = batch
        self.session.reset(batch)
        self._arrays: list[np.ndarray] = self.session.state(len(self._of_source))
