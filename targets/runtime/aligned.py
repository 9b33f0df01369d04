"""Arrays at addresses that vector instructions may use; numpy promises 16 bytes only."""

from __future__ import annotations

import math

import numpy as np

from edgeq.formats.low_bit import WEIGHT_ALIGNMENT


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns zeros; the system hands out a page when it is first written."""
    return _placed(np.zeros(_room(shape, dtype), np.uint8), shape, dtype)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Returns a copy in C order."""
    copy = _placed(np.empty(_room(array.shape, array.dtype), np.uint8), array.shape, array.dtype)
    copy[...] = array
    return copy


def _room(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize + WEIGHT_ALIGNMENT


def _placed(data: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # The interface's address is found many times faster than `data.ctypes`, and steps of a decoder come here.
    start = -data.__array_interface__["data"][0] % WEIGHT_ALIGNMENT
    return data[start : start + data.size - WEIGHT_ALIGNMENT].view(dtype).reshape(shape)
