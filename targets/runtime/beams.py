"""Beam search: the likeliest texts of a source, as transformers searches for them.

``transformers`` 4.57 is followed step by step (candidates, finished texts, early stopping, length penalty), so the
same logits give the same texts. Sums are float64 here, and ties go to the lower beam, then to the lower id.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime.sampling import exp_of_negative, largest

_IMPOSSIBLE = -1e9
"""Score of beams that do not exist yet: far below any real one, and finite."""
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
        if self.early_stopping not in (True, False, "never"):
            raise UsageError(f"early_stopping must be True, False or 'never', found {self.early_stopping!r}")


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A text that has ended.

    Attributes:
        score: Log-probability, divided by its length to the power of the penalty.
        ids: Its tokens.
    """

    score: float
    ids: list[int]


def forced_tokens(limit: int, *, first: int | None, last: int | None) -> dict[int, int]:
    """Returns the tokens that are not chosen, by the length of the text that ends with them.

    Args:
        limit: Most tokens of a text.
        first: Token that every text starts with, or None.
        last: Token that a text of ``limit`` tokens ends with, or None; it goes before ``first``.
    """
    tokens = {} if first is None else {1: first}
    return tokens if last is None else tokens | {limit: last}


class BeamSearch:
    """The texts of one source while they are searched.

    Args:
        beams: How.
        end_ids: Tokens that end a text.
        limit: Most tokens of a text.
        forced_first: Token that every text starts with, or None.
        forced_last: Token that a text of ``limit`` tokens ends with, or None.

    Attributes:
        finished: The best texts that have ended, best first, at most ``beams.count``.
        done: True when nothing is left to search.
    """

    def __init__(
        self,
        beams: Beams,
        *,
        end_ids: Collection[int],
        limit: int,
        forced_first: int | None = None,
        forced_last: int | None = None,
    ) -> None:
        self._beams = beams
        self._end_ids = frozenset(end_ids)
        self._limit = limit
        self._forced = forced_tokens(limit, first=forced_first, last=forced_last)
        self._running: list[list[int]] = [[] for _ in range(beams.count)]
        self._scores = np.full(beams.count, _IMPOSSIBLE)
        self._scores[0] = 0.0  # all beams are still the same one
        self.finished: list[Hypothesis] = []
        self.done = False

    @property
    def last_tokens(self) -> list[int]:
        """The newest token of each open text."""
        return [ids[-1] for ids in self._running]

    def advance(self, logits: np.ndarray) -> list[int]:
        """Takes what the model says after each open text, and makes all of them one token longer.

        Args:
            logits: float32 ``[beams, vocabulary]``.

        Returns:
            For each new open text the number of the old one that it continues.

        Raises:
            FormatError: If the logits are not numbers.
        """
        if not np.isfinite(logits).all():
            raise FormatError("the model's logits are not finite; compile the bundle again from a sound checkpoint")
        length = len(self._running[0]) + 1
        count, vocabulary = logits.shape
        totals = (self._log_probabilities(logits, length) + self._scores[:, None]).reshape(-1)
        # Even if every beam's likeliest continuations end, enough others are left to go on with.
        places = largest(totals, min(max(2, 1 + len(self._end_ids)) * count, totals.size))
        places = places[np.argsort(-totals[places], kind="stable")]
        scores = totals[places]
        texts = [[*self._running[place // vocabulary], int(place % vocabulary)] for place in places]
        ends = np.array([text[-1] in self._end_ids or length == self._limit for text in texts])
        norm = length**self._beams.length_penalty
        self._add_finished([Hypothesis(float(scores[i]) / norm, texts[i]) for i in range(count) if ends[i]])
        scores = np.where(ends, scores + _IMPOSSIBLE, scores)
        open_texts = np.argsort(-scores, kind="stable")[:count]
        self._running = [texts[i] for i in open_texts]
        self._scores = scores[open_texts]
        self.done = bool(ends.all()) or self._is_settled(length)
        return [int(places[i] // vocabulary) for i in open_texts]

    def _log_probabilities(self, logits: np.ndarray, length: int) -> np.ndarray:
        forced = self._forced.get(length)
        if forced is not None:
            result = np.full(logits.shape, -np.inf)
            result[:, forced] = 0.0
            return result
        centred = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        sums = np.cumsum(exp_of_negative(centred), axis=1)[:, -1:]  # one after the other, on every machine alike
        return centred - np.vectorize(math.log)(sums)

    def _add_finished(self, texts: list[Hypothesis]) -> None:
        merged = sorted([*self.finished, *texts], key=lambda text: -text.score)  # stable: earlier ones first
        self.finished = merged[: self._beams.count]

    def _is_settled(self, length: int) -> bool:
        """Tells whether no open text can still be better than the worst of enough finished ones."""
        beams = self._beams
        if len(self.finished) < beams.count:
            return False
        if beams.early_stopping is True:
            return True
        at_best = self._limit if beams.early_stopping == "never" and beams.length_penalty > 0 else length
        return float(self._scores[0]) / at_best**beams.length_penalty <= self.finished[-1].score
