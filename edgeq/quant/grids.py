"""The grids that weights are rounded to: which codes exist, and which code stands for zero."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from edgeq.errors import UsageError
from edgeq.formats.low_bit import levels

GridName = Literal["symmetric", "ternary", "balanced", "binary"]

_GRIDS: dict[int, dict[GridName, float]] = {
    1: {"binary": 0.5},
    2: {"ternary": 1.0, "balanced": 1.5},
    4: {"symmetric": 8.0},
    7: {"symmetric": 64.0},
    8: {"symmetric": 128.0},
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A set of levels ``code - zero_point`` for the codes ``lowest..highest``.

    Attributes:
        name: ``symmetric`` (2**bits - 1 levels around an exact zero), ``ternary`` (-1, 0, 1),
            ``balanced`` (-1.5, -0.5, 0.5, 1.5) or ``binary`` (-0.5, 0.5).
        bits: Bits of one code, which say how many levels there are.
        zero_point: Code that stands for 0.0.
    """

    name: GridName
    bits: int
    zero_point: float

    @property
    def stored_bits(self) -> int:
        """Bits that one code takes in files: 8 for 7 bits, whose gain is speed."""
        return 8 if self.bits == 7 else self.bits

    @property
    def lowest(self) -> int:
        """Smallest code in use."""
        return levels(self.bits, self.zero_point)[0]

    @property
    def highest(self) -> int:
        """Largest code in use."""
        return levels(self.bits, self.zero_point)[1]

    @property
    def largest_level(self) -> float:
        """Largest magnitude of ``code - zero_point``."""
        return self.highest - self.zero_point

    def round_to_codes(self, scaled: torch.Tensor) -> torch.Tensor:
        """Returns the nearest code of each entry of ``scaled = weight / scale``, as integer-valued floats.

        Ties go to the even code, except on the binary grid, where an exact zero takes code 1.
        """
        if self.name == "binary":
            return (scaled >= 0).to(scaled.dtype)
        return torch.round(scaled + self.zero_point).clamp_(self.lowest, self.highest)


def grid_for(bits: int, name: GridName | None = None) -> Grid:
    """Returns the grid of a bit width; 2 bits have two grids, of which ternary is the default.

    Raises:
        UsageError: If there is no such grid at this bit width.
    """
    if bits not in _GRIDS:
        raise UsageError(f"weights have {', '.join(map(str, _GRIDS))} bits, found {bits}")
    known = _GRIDS[bits]
    chosen = next(iter(known)) if name is None else name
    if chosen not in known:
        raise UsageError(f"the grid of {bits}-bit weights is {' or '.join(known)}, found {chosen!r}")
    return Grid(chosen, bits, known[chosen])
