"""How beams are searched: the most likely texts of an encoder input, as transformers searches for them."""

from __future__ import annotations

import dataclasses

from edgeq.errors import UsageError

_MOST_BEAMS = 64


@dataclasses.dataclass(frozen=True)
class Beams:
    """How beams are searched; checked when it is made.

    Attributes:
        count: Texts that are kept at each step; 1 is no beam search.
        length_penalty: A text's score is its log-probability divided by its length to this power: above 0 favours
            longer texts.
        early_stopping: True stops as soon as ``count`` texts have ended; False when the best open one, at its present
            length, is worse than all of those; ``"never"`` when it cannot become better at any length.

    Raises:
        UsageError: If a value is out of range.
    """

    count: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        count, penalty = self.count, self.length_penalty
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_BEAMS:
            raise UsageError(f"the number of beams must be an integer in 1..{_MOST_BEAMS}, found {count!r}")
        is_number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
        if not is_number or not -100 <= penalty <= 100:
            raise UsageError(f"length_penalty must be a number in -100..100, found {penalty!r}")
        if self.early_stopping != "never" and not isinstance(self.early_stopping, bool):
            raise UsageError(f"early_stopping must be True, False or 'never', found {self.early_stopping!r}")


ONE_BEAM = Beams()
"""No beam search."""
