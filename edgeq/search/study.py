"""The study: which candidate comes next, what became of each, and when it is enough."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.progress import Progress
from edgeq.results.base import plain, validated
from edgeq.search.report import Measured, MethodSet, Refused, Structure
from edgeq.search.space import SHARES, Space
from edgeq.search.storage import Storage, is_alive

_MOST_REPEATS = 50
"""Candidates in a row that were tried already, after which nothing new is expected."""
_REASON, _REPEATED, _FOUND = "reason", "repeated", "found"


class RefusedError(Exception):
    """A candidate that cannot keep a limit; never leaves this package."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a candidate is made of.

    Attributes:
        method: Method of calibration.
        share: Share of the budget of bytes that it may take.
        structure: Its shapes.
    """

    method: MethodSet
    share: float
    structure: Structure


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a candidate that was measured.

    Attributes:
        values: Quality, bytes and, where latency is asked for, milliseconds.
        found: All that was measured.
    """

    values: tuple[float, ...]
    found: Measured


class Study:
    """A study in its storage, which several processes may work on.

    Args:
        storage: Where it lies.
        name: Its name: the same for all that search the same.
        space: The choices.
        directions: ``minimize`` or ``maximize`` for each value.
        seed: Of the sampler.
    """

    def __init__(self, storage: Storage, name: str, space: Space, *, directions: list[str], seed: int) -> None:
        self.storage, self.name, self._space = storage, name, space
        self._study = storage.study(name, directions=directions, seed=seed)
        trials = self._trials()
        for wanted in self._interrupted(trials) if trials else self._first():
            # Two that begin a study at once put the same candidates into the queue.
            storage.reached(lambda wanted=wanted: self._study.enqueue_trial(wanted, skip_if_exists=not trials))  # type: ignore[misc]

    def _first(self) -> list[dict[str, Any]]:
        """Every method on the float model's shapes, the cheapest first; then the pruned vocabulary."""
        plain = {"share": SHARES[0], "factor": "none", "blocks": 0, "pruned": False}
        first = [{**plain, "method": method} for method in self._space.methods]
        return first + ([{**first[-1], "pruned": True}] if self._space.vocabulary is not None else [])

    def _interrupted(self, trials: list[Any]) -> list[dict[str, Any]]:
        """The candidates that somebody began and nobody works on any more, each once."""
        # Nothing is known yet of one that another process is just drawing.
        kept = [asked for one in trials if not _was_interrupted(one) and (asked := _asked(one))]
        found: list[dict[str, Any]] = []
        for one in filter(_was_interrupted, trials):
            asked = _asked(one)
            if asked and not any(_is_same(asked, other) for other in [*kept, *found]):
                found.append(asked)
        return found

    def run(
        self,
        attempt: Callable[[Choices], Outcome],
        *,
        trials: int,
        hours: float | None,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tries candidates until there are enough.

        Args:
            attempt: Makes and measures one; raises :class:`RefusedError` for one that cannot keep a limit.
            trials: Candidates of all processes together.
            hours: None begins after this time.
            progress: Told how many are done, and how long the others may take.
            clock: Seconds that pass.

        Raises:
            EdgeqError: If the storage goes away, or no candidate could be made.
        """
        began, own, repeats = clock(), 0, 0
        limit = min(trials, self._space.combinations)
        while repeats < _MOST_REPEATS:
            done = self.finished + self._running()
            if done >= limit or (hours is not None and clock() - began >= 3600 * hours):
                break
            left = (clock() - began) / own * (limit - done) / 60 if own else None
            when = "" if left is None else f", about {max(1, round(left))} minutes left"
            progress(f"candidates{when}", done, limit)
            repeats = repeats + 1 if self._one(attempt) else 0
            own += not repeats
        progress("candidates", min(self.finished, limit), limit)
        if not self.measured and (failed := self._failures()):
            raise EdgeqError(f"no candidate could be made: {failed[-1]}")

    def _one(self, attempt: Callable[[Choices], Outcome]) -> bool:
        """Tries one candidate, and tells whether it had been tried before."""
        import optuna

        trial = self.storage.reached(self._study.ask)
        try:
            return self._try(trial, attempt)
        except optuna.exceptions.UpdateFinishedTrialError:
            # SQLite may give a candidate that waits to two processes at the same moment: the other one was faster.
            return True

    def _try(self, trial: Any, attempt: Callable[[Choices], Outcome]) -> bool:
        import optuna

        state = optuna.trial.TrialState
        values: tuple[float, ...] | None = None
        ended, notes = state.FAIL, {"host": os.uname().nodename, "process": os.getpid()}
        self._note(trial, notes)
        try:
            choices = self._chosen(trial)
            if self._was_tried(trial):
                ended, notes = state.PRUNED, {_REPEATED: True}
                return True
            outcome = attempt(choices)
            values, ended, notes = outcome.values, state.COMPLETE, {_FOUND: plain(outcome.found)}
        except RefusedError as error:
            ended, notes = state.PRUNED, {_REASON: str(error)}
        except EdgeqError as error:
            notes = {_REASON: str(error)}
        finally:
            # An interrupt ends here too: the study then knows that nobody works on the candidate any more.
            self._note(trial, notes)
            self.storage.reached(lambda: self._study.tell(trial, values, state=ended))
        return False

    def _note(self, trial: Any, notes: dict[str, Any]) -> None:
        for key, value in notes.items():
            self.storage.reached(lambda key=key, value=value: trial.set_user_attr(key, value))  # type: ignore[misc]

    def _chosen(self, trial: Any) -> Choices:
        def pick(name: str, options: Any) -> Any:
            return self.storage.reached(lambda: trial.suggest_categorical(name, list(options)))

        method = pick("method", self._space.methods)
        share = pick("share", SHARES)
        factor = pick("factor", self._space.factors)
        # Without a training, a model with fewer blocks is of no use.
        blocks = pick("blocks", self._space.blocks) if method == "distill" else 0
        pruned = pick("pruned", (False, True)) if self._space.vocabulary is not None else False
        return Choices(method, share, Structure(blocks, factor, pruned))

    def _was_tried(self, trial: Any) -> bool:
        others = [one for one in self._trials() if one.number != trial.number and one.params == trial.params]
        return any(_is_finished(one) or (one.state.name == "RUNNING" and is_alive(one)) for one in others)

    def _trials(self) -> list[Any]:
        return list(self.storage.reached(lambda: self._study.get_trials(deepcopy=False)))

    @property
    def finished(self) -> int:
        """Candidates that were measured, refused or could not be made; those that were interrupted are left out."""
        return sum(_is_finished(one) for one in self._trials())

    def _running(self) -> int:
        return sum(one.state.name == "RUNNING" and is_alive(one) for one in self._trials())

    def _failures(self) -> list[str]:
        return [one.user_attrs[_REASON] for one in self._trials() if _REASON in one.user_attrs]

    @property
    def measured(self) -> dict[int, Measured]:
        """What was found out of each candidate that was measured, by its number, in the order in which they began."""
        where, fix = f"study {self.name}", "search in a new folder"
        return {
            one.number: validated(Measured, one.user_attrs[_FOUND], where=where, fix=fix)
            for one in self._trials()
            if one.state.name == "COMPLETE"
        }

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Candidates that were not measured, with the reason."""
        return tuple(
            Refused(one.number, dict(one.params), one.user_attrs[_REASON])
            for one in self._trials()
            if _REASON in one.user_attrs
        )

    @property
    def best_numbers(self) -> set[int]:
        """Candidates that no other one is better than in everything: the Pareto front."""
        return {one.number for one in self.storage.reached(lambda: self._study.best_trials)}


def _asked(trial: Any) -> dict[str, Any]:
    """What a candidate is made of: all that was asked for where it waited in the queue, else what was drawn."""
    return dict(trial.system_attrs.get("fixed_params", trial.params))


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two candidates agree; one of a method without distillation may leave the number of blocks out."""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _was_interrupted(trial: Any) -> bool:
    """Whether a candidate was begun, came to nothing, and nobody works on it any more."""
    if trial.state.name == "RUNNING":
        return not is_alive(trial)
    return trial.state.name == "FAIL" and not _is_finished(trial)


def _is_finished(trial: Any) -> bool:
    """Whether a candidate came to something; one that had been tried before, or was interrupted, did not."""
    return trial.state.name == "COMPLETE" or _REASON in trial.user_attrs
