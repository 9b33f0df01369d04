"""The caches of a decoder: allocated once for a batch, changed in place by compiled code, never copied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeq.targets.runtime.aligned import aligned_zeros
from edgeq.targets.runtime.schema import LANES, SOURCE_STATE, GenerationInfo
from edgeq.targets.runtime.tvm_import import tvm_runtime

_IN_VECTORS = {"context_blocks", "source_context_blocks"}


class State:
    """Keys and values of a batch of sequences, for every layer.

    What a slot holds that no sequence has reached yet is never read as a number, so old contents do no harm.

    Args:
        generation: The decoder's caches.
        batch: Number of sequences.

    Attributes:
        batch: Number of sequences.
        tensors: What compiled code takes, in the order of ``generation.state``.
    """

    def __init__(self, generation: GenerationInfo, batch: int) -> None:
        self._arrays = [
            aligned_zeros(generation.state_shape(spec, batch), np.dtype(spec.dtype)) for spec in generation.state
        ]
        self._tokens_per_slot = [LANES if _IN_VECTORS.intersection(spec.shape) else 1 for spec in generation.state]
        self._of_source = [spec.name.startswith(SOURCE_STATE) for spec in generation.state]
        self.use_rows(batch)

    @property
    def source_tensors(self) -> list[Any]:
        """The source caches of an encoder-decoder, in the order of ``generation.source_state``."""
        return [tensor for tensor, of_source in zip(self.tensors, self._of_source, strict=True) if of_source]

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
        for array, tokens, of_source in self._caches():
            of_rows = (source_lengths or lengths) if of_source else lengths
            for to, (row, length) in enumerate(zip(rows, of_rows, strict=True)):
                used = -(-length // tokens)
                if to != row:
                    array[to, :, :used] = array[row, :, :used]
        self.use_rows(len(rows))

    def repeat_source(self, batch: int, length: int) -> None:
        """Gives the only source of the state to a number of sequences, which are empty.

        Args:
            batch: Number of sequences, at most that for which the state was made.
            length: Tokens of the source.
        """
        for array, tokens, of_source in self._caches():
            if of_source:
                array[1:batch, :, : -(-length // tokens)] = array[0, :, : -(-length // tokens)]
        self.use_rows(batch)

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

    def use_rows(self, batch: int) -> None:
        """Serves the first sequences only: as many as given, at most those for which the state was made."""
        from_dlpack = tvm_runtime().from_dlpack
        self.batch = batch
        self.tensors: list[Any] = [from_dlpack(array[:batch]) for array in self._arrays]
