"""The self-test: golden inputs through a bundle, and its outputs against the golden ones, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.errors import FormatError
from edgeq.targets.runtime.names import GOLDEN_FILE
from edgeq.targets.runtime.schema import Manifest, PlacedTensor

if TYPE_CHECKING:
    from edgeq.targets.runtime.loader import Bundle

GoldenArrays = tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]
"""A function's name, its inputs and its outputs."""


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """Outcome of running the golden input.

    Attributes:
        ok: True if every output agrees with the stored one in every bit.
        detail: One sentence.
    """

    ok: bool
    detail: str


def self_test(bundle: Bundle) -> SelfTest:
    """Runs the golden inputs of a bundle and compares every bit of the outputs."""
    runs = bundle.golden_runs()
    batch = next(iter(runs[0][1].values())).shape[0]
    state = bundle.new_state(batch) if bundle.manifest.generation is not None else None
    for name, inputs, expected in runs:
        outcome = compare_golden(bundle.run_function(name, inputs, state=state), expected)
        if not outcome.ok:
            return outcome
    count = sum(array.size for _, _, expected in runs for array in expected.values())
    return SelfTest(True, f"{count} output values agree with the golden ones in every bit")


def golden_arrays(folder: Path, manifest: Manifest) -> list[GoldenArrays]:
    """Returns the golden runs of a bundle, in their order.

    Raises:
        FormatError: If the file is not as long as the manifest says.
    """
    data, expected = np.fromfile(folder / GOLDEN_FILE, np.uint8), manifest.files[GOLDEN_FILE].bytes
    if data.size != expected:
        path = folder / GOLDEN_FILE
        raise FormatError(f"{path} has {data.size} bytes, the manifest says {expected}; copy the bundle again")
    return [
        (
            run.function,
            {tensor.name: _view(data, tensor) for tensor in run.inputs},
            {tensor.name: _view(data, tensor) for tensor in run.outputs},
        )
        for run in manifest.golden
    ]


def _view(data: np.ndarray, tensor: PlacedTensor) -> np.ndarray:
    """The tensor's values inside ``data``; the manifest's parser has checked that they lie inside the file."""
    part = data[tensor.offset : tensor.offset + tensor.bytes]
    return part.view(tensor.dtype).reshape(tensor.shape)


def compare_golden(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> SelfTest:
    """Compares outputs with the golden ones, bit for bit."""
    for name, wanted in expected.items():
        array = found[name]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            return SelfTest(
                False,
                f"output {name!r} is {array.dtype} {list(array.shape)}, "
                f"the golden one is {wanted.dtype} {list(wanted.shape)}",
            )
        differing = int(np.count_nonzero(_items_as_bytes(array) != _items_as_bytes(wanted)))
        if differing:
            return SelfTest(
                False, f"output {name!r} differs from the golden one in {differing} of {wanted.size} values"
            )
    count = sum(array.size for array in expected.values())
    return SelfTest(True, f"{count} output values agree with the golden ones in every bit")


def _items_as_bytes(array: np.ndarray) -> np.ndarray:
    """One opaque item a value, so that NaNs and signed zeros compare by their bits."""
    return np.ascontiguousarray(array).reshape(-1).view(f"V{array.dtype.itemsize}")
