"""Our own backends: one model, one answer, on every device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.backends import Arrays, Backend
from edgeq.parity.rules.rule import BundleOutputs, Rule
from edgeq.results import Check


class BitIdentical(Rule):
    """Every way to run a bundle, and every other bundle, gives the same bits."""

    name = "bit-identical"

    def of_bundle(self, bundle: BundleOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_bundle`."""
        return [
            check_bits(", ".join(filter(None, (bundle.stage, each.how))), each.got, each.want, against=each.against)
            for each in bundle.again
        ]


def differing(got: Sequence[Arrays], want: Sequence[Arrays]) -> tuple[int, int]:
    """Counts values whose bits differ.

    Returns:
        The number of differing values, and of all values. A missing output or another shape counts whole.
    """
    wrong = total = 0
    for outputs, reference in zip(got, want, strict=True):
        for name, value in reference.items():
            total += value.size
            other = outputs.get(name)
            if other is None or other.shape != value.shape or other.dtype != value.dtype:
                wrong += value.size
                continue
            bits = np.dtype(f"u{value.dtype.itemsize}")
            ours = np.ascontiguousarray(other).view(bits)
            wrong += int((ours != np.ascontiguousarray(value).view(bits)).sum())
    return wrong, total


def check_bits(stage: str, got: Sequence[Arrays], want: Sequence[Arrays], *, against: str) -> Check:
    """Demands that every bit of ``got`` is that of ``want``."""
    wrong, total = differing(got, want)
    if wrong:
        detail = f"{wrong} of {total} values differ from those of {against}"
    else:
        detail = f"all {total} values equal those of {against} in every bit"
    return Check(stage, "bit-identical", wrong == 0, detail, {"differing": wrong, "values": total})


def one_by_one(backend: Backend, feed: Arrays) -> Arrays:
    """Runs each text of a batch alone, at the same padded length, and stacks the outputs."""
    batch = len(next(iter(feed.values())))
    singles = [backend({name: value[row : row + 1] for name, value in feed.items()}) for row in range(batch)]
    return {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}
