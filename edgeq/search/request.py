"""What a user asks of a search, and what it came to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgeq.results import LossLimit
from edgeq.search.report import MethodSet, SearchReport
from edgeq.search.space import METHODS

DEFAULT_TRIALS = 8
"""Candidates of a search, unless a user says otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a user asks of a search.

    Attributes:
        source: Folder of a float checkpoint, or a hub name.
        eval_data: Examples, or a text for models that generate text; half of it is never looked at but for the end.
        max_bytes: Largest size of the weights as stored.
        max_ms: Longest latency in milliseconds; None for no limit.
        max_loss: Largest loss on the half that the search does not see; None for no limit.
        calibration_data: Texts without labels; None for those that come with edgeq.
        methods: Methods of calibration to try, by their names in :data:`edgeq.search.space.METHODS`.
        shapes: Whether blocks may be dropped and matrices factorised; None is where there is a limit of latency.
        vocabulary: Corpus that the vocabulary may be pruned for; None keeps all tokens.
        trials: Candidates, those of all processes that join counted together.
        hours: No candidate begins after this time; None for no limit.
        storage: File or database of the study; None for a journal in the search's folder.
        target: Name or file of the target that latency is for; None for this machine.
        device: Address of a device on which latency is measured.
        threads: Threads of a call that is measured.
        sequence: Tokens of a text that is measured.
        seed: Splits the evaluation data, and draws candidates.
    """

    source: str | Path
    eval_data: Path
    max_bytes: int
    max_ms: float | None = None
    max_loss: LossLimit | None = None
    calibration_data: Path | None = None
    methods: tuple[MethodSet, ...] = tuple(METHODS)
    shapes: bool | None = None
    vocabulary: Path | None = None
    trials: int = DEFAULT_TRIALS
    hours: float | None = None
    storage: str | None = None
    target: str | None = None
    device: str | None = None
    threads: int = 2
    sequence: int | None = None
    seed: int = 0

    @property
    def timed(self) -> bool:
        """Whether latency is asked for."""
        return self.max_ms is not None or self.target is not None or self.device is not None


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        folder: Its folder, with ``recipe.toml``, ``search.html``, ``search.json`` and the candidates.
        report: Contents of ``search.json``.
    """

    folder: Path
    report: SearchReport

    @property
    def passed(self) -> bool:
        """Whether the promised loss keeps the limit, if there is one."""
        return self.report.promise.kept

    @property
    def interrupted(self) -> bool:
        """Whether candidates are left that were to be tried."""
        return self.report.study.interrupted
