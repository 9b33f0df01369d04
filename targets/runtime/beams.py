"""Beam search: the likeliest texts of a source, as transformers searches for them.

``transformers`` 4.57 is followed step by step (candidates, finished texts, early stopping, length penalty), so the
same logits give the same texts. Sums are float64 here, and ties go to the lower beam, then to the lower id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.numerics import exp_of_negative, natural_log, power
from edgeq.targets.runtime.rules import NO_RULES, NextToken, Rules, forced_tokens
from edgeq.targets.runtime.sampling import check_finite, largest, penalised, without

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
        if self.early_stopping != "never" and not isinstance(self.early_stopping, bool):
            raise UsageError(f"early_stopping must be True, False or 'never', found {self.early_stopping!r}")


ONE_BEAM = Beams()
"""No beam search."""


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A text that has ended.

    Attributes:
        score: Log-probability, divided by its length to the power of the penalty.
        ids: Its tokens.
    """

    score: float
    ids: list[int]


class BeamSearch:
    """The texts of one source while they are searched.

    Args:
        beams: How.
        end_ids: Tokens that end a text.
        limit: Most tokens of a text.
        forced_first: Token that every text starts with, or None.
        forced_last: Token that a text of ``limit`` tokens ends with, or None.
        prefix: Tokens before the first new one.
        rules: What a text may hold.
        repetition_penalty: Factor against tokens that a text has already, on log-probabilities as in transformers.

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
        prefix: Sequence[int] = (),
        rules: Rules = NO_RULES,
        repetition_penalty: float = 1.0,
    ) -> None:
        self._beams = beams
        self._end_ids = frozenset(end_ids)
        self._limit = limit
        self._prefix = list(prefix)
        self._penalty = repetition_penalty
        forced = forced_tokens(limit, first=forced_first, last=forced_last)
        self._next = NextToken(rules, prefix=prefix, end_ids=self._end_ids, forced=forced)
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
            UsageError: If no token is left that may come next.
        """
        check_finite(logits)
        length = len(self._running[0]) + 1
        count, vocabulary = logits.shape
        totals = (self._log_probabilities(logits) + self._scores[:, None]).reshape(-1)
        # Even if every beam's likeliest continuations end, enough others are left to go on with.
        places = largest(totals, min(max(2, 1 + len(self._end_ids)) * count, totals.size))
        places = places[np.argsort(-totals[places], kind="stable")]
        scores = totals[places]
        if scores[0] == -np.inf:
            raise UsageError("no token is left that may come next; allow repetitions, or ask for fewer tokens")
        texts = [[*self._running[place // vocabulary], int(place % vocabulary)] for place in places]
        ends = np.array([text[-1] in self._end_ids or length == self._limit for text in texts])
        norm = power(length, self._beams.length_penalty)
        self._add_finished([Hypothesis(float(scores[i]) / norm, texts[i]) for i in range(count) if ends[i]])
        scores = np.where(ends, scores + _IMPOSSIBLE, scores)
        open_texts = np.argsort(-scores, kind="stable")[:count]
        self._running = [texts[i] for i in open_texts]
        self._scores = scores[open_texts]
        self.done = bool(ends.all()) or self._is_settled(length)
        return [int(places[i] // vocabulary) for i in open_texts]

    def _log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        forced = self._next.forced(self._running[0])
        if forced is not None:
            result = np.full(logits.shape, -np.inf)
            result[:, forced] = 0.0
            return result
        return np.stack([self._of_beam(row, text) for row, text in zip(logits, self._running, strict=True)])

    def _of_beam(self, logits: np.ndarray, text: list[int]) -> np.ndarray:
        centred = logits.astype(np.float64) - float(logits.max())
        total = float(np.cumsum(exp_of_negative(centred))[-1])  # one after the other, on every machine alike
        result = centred - natural_log(total)
        if self._penalty != 1:
            result = penalised(result, sorted({*self._prefix, *text}), self._penalty)
        banned = self._next.banned(text)
        return without(result, banned) if banned else result

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
        return float(self._scores[0]) / power(at_best, beams.length_penalty) <= self.finished[-1].score
