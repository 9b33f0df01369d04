"""The caches of a decoder: allocated once for a batch, changed in place by compiled code, never copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeq.formats import WEIGHT_ALIGNMENT
from edgeq.targets.runtime.schema import LANES, GenerationInfo
from edgeq.targets.runtime.tvm_import import import_tvm


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
            _aligned_zeros(generation.state_shape(spec, batch), np.dtype(spec.dtype)) for spec in generation.state
        ]
        self._tokens_per_slot = [LANES if "context_blocks" in spec.shape else 1 for spec in generation.state]
        self._use_rows(batch)

    @property
    def bytes(self) -> int:
        """Memory of all caches; the system hands out a page when it is first written."""
        return sum(array.nbytes for array in self._arrays)

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Keeps some sequences, closed up, and forgets the others.

        Args:
            rows: Ascending row numbers.
            lengths: Tokens that each of ``rows`` holds; only those are moved.
        """
        for array, tokens in zip(self._arrays, self._tokens_per_slot, strict=True):
            for to, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                used = -(-length // tokens)
                if to != row:
                    array[to, :, :used] = array[row, :, :used]
        self._use_rows(len(rows))

    def _use_rows(self, batch: int) -> None:
        from_dlpack = import_tvm().runtime.from_dlpack
        self.batch = batch
        self.tensors: list[Any] = [from_dlpack(array[:batch]) for array in self._arrays]


def _aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros at an address that vector instructions may use; numpy promises 16 bytes only."""
    size = math.prod(shape) * dtype.itemsize
    data = np.zeros(size + WEIGHT_ALIGNMENT, np.uint8)
    start = -data.ctypes.data % WEIGHT_ALIGNMENT
    return data[start : start + size].view(dtype).reshape(shape)
