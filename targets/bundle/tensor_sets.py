"""Input and output sets as files, in the format that ``edgeq-run --tensors`` reads (runner/tensor_file.h)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeq.errors import FormatError
from edgeq.targets.runtime.inputs import inputs_in_order
from edgeq.targets.runtime.names import ENCODE
from edgeq.targets.runtime.schema import Manifest, TensorSpec

_MAGIC = b"EQT1"
_MAIN, _ENCODE = 0, 1
"""Functions of a model, as the runner numbers them."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call: a function's number, its inputs in order, and what it gives."""

    function: int
    inputs: Sequence[np.ndarray]
    outputs: Sequence[TensorSpec]


def call_of_main(given: Mapping[str, Any], manifest: Manifest) -> Call:
    """Returns a call of ``main``.

    Raises:
        UsageError: If an input is not what the model takes.
    """
    return Call(_MAIN, inputs_in_order(given, manifest.inputs), manifest.outputs)


def call_of_encode(given: Mapping[str, Any], manifest: Manifest) -> Call:
    """Returns a call of ``encode``.

    Raises:
        UsageError: If an input is not what the model takes.
    """
    encode = manifest.functions[ENCODE]
    return Call(_ENCODE, inputs_in_order(given, encode.inputs), encode.outputs)


def encode_calls(calls: Sequence[Call], *, tagged: bool) -> bytes:
    """Returns the file that ``edgeq-run --tensors`` reads.

    Args:
        calls: The calls, in order.
        tagged: True for models with two functions: each call says which.
    """
    parts = [_MAGIC, struct.pack("<I", len(calls))]
    for call in calls:
        if tagged:
            parts.append(struct.pack("<I", call.function))
        for array in call.inputs:
            parts.append(struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape))
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return b"".join(parts)


def decode_outputs(data: bytes, calls: Sequence[Call], *, tagged: bool) -> list[dict[str, np.ndarray]]:
    """Returns the outputs in the file that ``edgeq-run`` wrote, by name, one mapping a call.

    Args:
        data: The file.
        calls: The calls that it answers.
        tagged: As for :func:`encode_calls`.

    Raises:
        FormatError: If the file is no answer to them.
    """
    try:
        if data[:4] != _MAGIC or struct.unpack_from("<I", data, 4)[0] != len(calls):
            raise FormatError("edgeq-run wrote another number of outputs than it was given inputs")
        at, sets = 8, []
        for call in calls:
            at += 4 if tagged else 0
            outputs = {}
            for spec in call.outputs:
                (dimensions,) = struct.unpack_from("<I", data, at)
                shape = struct.unpack_from(f"<{dimensions}q", data, at + 4)
                at += 4 + 8 * dimensions
                dtype = np.dtype(spec.dtype).newbyteorder("<")
                items = int(np.prod(shape, dtype=np.int64))
                array = np.frombuffer(data, dtype, items, at).reshape(shape)
                at += array.nbytes
                outputs[spec.name] = array.astype(spec.dtype)
            sets.append(outputs)
    except (struct.error, ValueError) as error:
        raise FormatError(f"edgeq-run wrote outputs that are cut off ({error})") from error
    return sets
