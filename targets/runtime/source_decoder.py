"""A batch of texts that an encoder-decoder writes, each from an encoder input that was read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgeq.targets.runtime.decoder import Decoder

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle


class SourceDecoder(Decoder):
    """Sequences of one batch, their caches, and those of their encoder inputs.

    A sequence gets the same logits alone and in any batch.

    Args:
        bundle: A loaded bundle of an encoder-decoder.
        sources: Ids of each encoder input, at least one an encoder input.

    Raises:
        UsageError: If the bundle has no encoder, an encoder input is empty or too long, or an id is unknown.
    """

    _has_source: ClassVar[bool] = True

    def __init__(self, bundle: Bundle, sources: Sequence[Sequence[int]]) -> None:
        super().__init__(bundle, batch=len(sources))
        lengths = np.array([len(source) for source in sources], np.int64)
        ids = np.zeros((len(sources), int(lengths.max(initial=0))), np.int64)
        for row, source in enumerate(sources):
            ids[row, : len(source)] = source
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "source_lengths": lengths}
        bundle.encode_source(inputs, state=self._state)
        self._source_lengths = lengths

    def _further_inputs(self) -> dict[str, np.ndarray]:
        return {"source_lengths": self._source_lengths}
