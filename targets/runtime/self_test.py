"""Golden outputs against found ones, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """Outcome of running the golden input.

    Attributes:
        ok: True if every output agrees with the stored one in every bit.
        detail: One sentence.
    """

    ok: bool
    detail: str


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
