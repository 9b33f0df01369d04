"""Checks what a caller passes to a bundle, before any of it reaches compiled code.

Compiled kernels trust their inputs: an id outside the vocabulary would read outside the embedding. So
names, types, ranks, sizes and values are all checked here, once, for every caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.errors import UsageError, nearest_name_hint
from edgeq.targets.runtime.schema import DECODER_INPUTS, SOURCE_INPUTS, ModelInfo, TensorSpec

SEQUENCE = "sequence"
"""Name of the dimension that ``max_length`` limits."""


def checked_inputs(
    given: Mapping[str, Any], specs: tuple[TensorSpec, ...], *, model: ModelInfo
) -> list[np.ndarray]:
    """Returns the model's inputs in order, contiguous and of the declared types.

    Inputs that have a default may be left out: they are filled to the shape of the others.

    Args:
        given: Arrays by input name; integer arrays of another width are converted.
        specs: The model's inputs.
        model: Gives the longest sequence.

    Raises:
        UsageError: If an input is missing, unknown, of a wrong type or shape, too long, or out of range.
    """
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            hint = nearest_name_hint(name, names)
            raise UsageError(f"the model has no input {name!r}{hint} (inputs: {', '.join(names)})")
    sizes: dict[str, int] = {}
    arrays: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.name in given:
            arrays[spec.name] = _checked_array(given[spec.name], spec)
            _bind_sizes(arrays[spec.name], spec, sizes)
    if model.max_length is not None and sizes.get(SEQUENCE, 0) > model.max_length:
        raise UsageError(
            f"the sequence has {sizes[SEQUENCE]} tokens, the model takes at most {model.max_length}; "
            "shorten or split the text"
        )
    for spec in specs:
        if spec.name not in arrays:
            arrays[spec.name] = _filled(spec, sizes)
    if names[: len(DECODER_INPUTS)] == list(DECODER_INPUTS):
        _check_lengths(arrays, context=model.max_length)
    elif names == list(SOURCE_INPUTS):
        _check_source_lengths(arrays)
    return [arrays[name] for name in names]


def _check_lengths(arrays: Mapping[str, np.ndarray], *, context: int | None) -> None:
    """A decoder's sequences must fit their rows and the cache."""
    ids, past, new = (arrays[name] for name in DECODER_INPUTS)
    if new.max() > ids.shape[1]:
        raise UsageError(f"input 'new_lengths' holds {new.max()}, but a row of 'input_ids' has {ids.shape[1]} tokens")
    longest = int((past + new).max())
    if context is not None and longest > context:
        raise UsageError(f"a sequence would have {longest} tokens, the bundle's context holds {context}")


def _check_source_lengths(arrays: Mapping[str, np.ndarray]) -> None:
    """No encoder input may be longer than its row; the mask must say the same."""
    ids, mask, lengths = (arrays[name] for name in SOURCE_INPUTS)
    if lengths.max() > ids.shape[1]:
        raise UsageError(f"input 'source_lengths' holds {lengths.max()}, but a row of ids has {ids.shape[1]} tokens")
    if not np.array_equal(mask != 0, np.arange(ids.shape[1]) < lengths[:, None]):
        raise UsageError("input 'attention_mask' must be 1 for the tokens that 'source_lengths' counts and else 0")


def _checked_array(value: Any, spec: TensorSpec) -> np.ndarray:
    array = np.asarray(value)
    wanted = np.dtype(spec.dtype)
    if array.dtype != wanted and not (array.dtype.kind in "iu" and wanted.kind in "iu"):
        raise UsageError(f"input {spec.name!r} must be an array of {spec.dtype}, found {array.dtype}")
    if array.ndim != len(spec.shape):
        raise UsageError(
            f"input {spec.name!r} must have shape [{', '.join(map(str, spec.shape))}], "
            f"found {list(array.shape)}"
        )
    if array.size == 0:
        raise UsageError(f"input {spec.name!r} is empty: its shape is {list(array.shape)}")
    if spec.minimum is not None and array.min() < spec.minimum:
        raise UsageError(
            f"input {spec.name!r} holds {array.min()}; values lie in {spec.minimum}..{spec.maximum}"
        )
    if spec.maximum is not None and array.max() > spec.maximum:
        raise UsageError(
            f"input {spec.name!r} holds {array.max()}; values lie in {spec.minimum}..{spec.maximum}"
        )
    if array.dtype != wanted and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise UsageError(f"input {spec.name!r} holds values that do not fit {spec.dtype}")
    return np.ascontiguousarray(array, dtype=wanted)


def _bind_sizes(array: np.ndarray, spec: TensorSpec, sizes: dict[str, int]) -> None:
    for wanted, found in zip(spec.shape, array.shape, strict=True):
        expected = sizes.setdefault(wanted, found) if isinstance(wanted, str) else wanted
        if found != expected:
            raise UsageError(
                f"input {spec.name!r} has size {found} where {expected} is expected ({wanted}); "
                f"its shape is {list(array.shape)}"
            )


def _filled(spec: TensorSpec, sizes: dict[str, int]) -> np.ndarray:
    if spec.default is None:
        raise UsageError(f"input {spec.name!r} is missing: an array of {spec.dtype} is expected")
    shape = []
    for size in spec.shape:
        if isinstance(size, str) and size not in sizes:
            raise UsageError(
                f"input {spec.name!r} cannot be filled in: no other input tells its size {size!r}"
            )
        shape.append(sizes[size] if isinstance(size, str) else size)
    return np.full(shape, spec.default, spec.dtype)
