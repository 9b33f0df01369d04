"""Golden inputs: the small batch that every bundle carries with the output it must give on any device."""

from __future__ import annotations

import numpy as np

from edgeq.targets.runtime.inputs import SEQUENCE
from edgeq.targets.runtime.schema import ModelInfo, TensorSpec

_BATCH = 2
_SEQUENCE = 9
"""Odd, and no multiple of a register, so that the tails of kernels run too."""
_SEED = 20240229


def golden_inputs(specs: tuple[TensorSpec, ...], model: ModelInfo) -> dict[str, np.ndarray]:
    """Makes the golden inputs: the same ones for the same model, whatever the target.

    Ids are spread over their range, masks end earlier in each row (padding), floats are normal.

    Args:
        specs: The model's inputs.
        model: Gives the longest sequence.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    sequence = min(_SEQUENCE, model.max_length or _SEQUENCE)
    arrays: dict[str, np.ndarray] = {}
    for spec in specs:
        shape = tuple(
            size if isinstance(size, int) else sequence if size == SEQUENCE else _BATCH for size in spec.shape
        )
        arrays[spec.name] = _values(spec, shape, generator)
    return arrays


def _values(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if spec.name == "attention_mask" and len(shape) == 2:
        lengths = np.maximum(shape[1] - 3 * np.arange(shape[0]), 1)
        return (np.arange(shape[1]) < lengths[:, None]).astype(dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    low = 0 if spec.minimum is None else spec.minimum
    high = low + 1 if spec.maximum is None else spec.maximum
    values = generator.integers(low, high, size=shape, endpoint=True).astype(dtype)
    values.flat[0], values.flat[-1] = high, low
    return values
