"""A batch of texts that an encoder-decoder writes, each from a source that was read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.decoder import Decoder

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle


class SourceDecoder(Decoder):
    """Sequences of one batch, their caches, and those of their sources.

    A sequence gets the same logits alone and in any batch.

    Args:
        bundle: A loaded bundle of an encoder-decoder.
        sources: Ids of each source, at least one a source.
        beams: Sequences that share the source; more than one only for a single source.

    Raises:
        UsageError: If the bundle reads no source, a source is empty or too long, or an id is not in the vocabulary.
    """

    _has_source: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, sources: Sequence[Sequence[int]], *, beams: int = 1) -> None:
        if beams > 1 and len(sources) != 1:
            raise UsageError(f"beams need a single source, found {len(sources)}")
        super().__init__(bundle, batch=len(sources))
        lengths = np.array([len(source) for source in sources], np.int64)
        ids = np.zeros((len(sources), int(lengths.max(initial=0))), np.int64)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "source_lengths": lengths}
        bundle.encode_source(inputs, state=self._state)
        if beams > 1:
            self._state.repeat_source(beams, int(lengths[0]))
            self._lengths = np.zeros(beams, np.int64)
        self._source_lengths = np.repeat(lengths, beams)

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps some sequences with their sources, in their order, and forgets the others.

        Args:
            rows: Ascending row numbers, at least one.
        """
        self._lengths = self._lengths[list(rows)]
        self._source_lengths = self._source_lengths[list(rows)]
        self._state.keep(rows, self.lengths, [int(length) for length in self._source_lengths])

    def reorder(self, rows: Sequence[int]) -> None:
        """Makes each sequence go on from another one of the same source and length.

        Args:
            rows: For each sequence the one whose tokens it takes over.
        """
        self._state.reorder(rows, int(self._lengths[0]))

    def _further_inputs(self) -> dict[str, np.ndarray]:
        return {"source_lengths": self._source_lengths}
