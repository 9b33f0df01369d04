"""Makes the inputs of a call of what a caller passes: arrays in order, of the declared types and ranks.

Values, lengths and the longest sequence are left to libedgeq, which looks at every input before a kernel reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.errors import UsageError, nearest_name_hint
from edgeq.targets.runtime.schema import TensorSpec

SEQUENCE = "sequence"
"""Name of the dimension that ``max_length`` limits."""


def inputs_in_order(given: Mapping[str, Any], specs: tuple[TensorSpec, ...]) -> list[np.ndarray]:
    """Returns a function's inputs in order, contiguous and of the declared types.

    Inputs that have a default may be left out: they are filled to the shape of the others.

    Args:
        given: Arrays by input name; integer arrays of another width are converted.
        specs: The function's inputs.

    Raises:
        UsageError: If an input is missing, unknown, or of a wrong type or shape.
    """
    if not given.keys() <= {spec.name for spec in specs}:
        raise _unknown(given, [spec.name for spec in specs])
    sizes: dict[str, int] = {}
    arrays: list[np.ndarray | None] = []
    for spec in specs:
        arrays.append(_converted(given[spec.name], spec) if spec.name in given else None)
        if arrays[-1] is not None:
            _bind_sizes(arrays[-1], spec, sizes)
    return [_filled(spec, sizes) if array is None else array for spec, array in zip(specs, arrays, strict=True)]


def _unknown(given: Mapping[str, Any], names: list[str]) -> UsageError:
    name = next(name for name in given if name not in names)
    hint = nearest_name_hint(name, names)
    return UsageError(f"the model has no input {name!r}{hint} (inputs: {', '.join(names)})")


def _converted(value: Any, spec: TensorSpec) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"input {spec.name!r} must be an array of {spec.dtype} with rows of one length") from error
    if array.ndim != len(spec.shape):
        raise UsageError(
            f"input {spec.name!r} must have shape [{', '.join(map(str, spec.shape))}], "
            f"found {list(array.shape)}"
        )
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iu" or wanted.kind not in "iu":
        raise UsageError(f"input {spec.name!r} must be an array of {spec.dtype}, found {array.dtype}")
    limits = np.iinfo(wanted)
    if array.size > 0 and (array.min() < limits.min or array.max() > limits.max):
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
