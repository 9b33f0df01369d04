"""What a run is of, which of its stages are finished (``deploy.json``), and all of its results (``report.json``)."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeq.results.accuracy import Accuracy
from edgeq.results.base import STRICT, Result
from edgeq.results.gates import Gates
from edgeq.results.ledger import RunLedger
from edgeq.results.parity import ParityReport
from edgeq.results.profile import RunProfile
from edgeq.results.training import Training

Level = Literal["good", "warn", "bad"]


@dataclasses.dataclass(frozen=True)
class RecipeOfRun:
    """The recipe of a run: its name, what it does, and the SHA-256 of what it says."""

    name: str
    summary: str
    sha256: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class TargetOfRun:
    """A target of a run: what it is, the family of its kernels, and LLVM's name of the processor."""

    summary: str
    isa: str
    cpu: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Taken:
    """One thing beside the weights that decides results.

    Attributes:
        what: Such as ``pooling``.
        value: What was taken, in words.
        file: The file that says so, relative to the model's folder; ``default`` where none does.
    """

    what: str
    value: str
    file: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class About:
    """What a run is of.

    Attributes:
        name: What reports call the model.
        source: The float checkpoint as the user named it.
        source_folder: Its folder.
        recipe: The recipe.
        targets: Targets by name, in the user's order.
        taken: What the model's folder says beside the weights.
        task: What was made of the float checkpoint, if the user said it.
        training: Name of the training's folder in the run; None for a recipe that does not train.
        gates: Limits, if the user gave any.
    """

    name: str
    source: str
    source_folder: str
    recipe: RecipeOfRun
    targets: dict[str, TargetOfRun]
    taken: tuple[Taken, ...]
    task: str | None = None
    training: str | None = None
    gates: Gates | None = None

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """A finished stage.

    Attributes:
        key: Digest of everything that the stage depended on.
        files: SHA-256 of each file that it wrote, by path relative to the run's folder.
    """

    key: str
    files: dict[str, str]

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class RunRecord(Result):
    """``deploy.json``: what a run is of, and its finished stages by name."""

    format: Literal["edgeq-run"] = dataclasses.field(default="edgeq-run", kw_only=True)
    version: Literal[2] = dataclasses.field(default=2, kw_only=True)
    __pydantic_config__ = STRICT
    fix = "delete it, and the next 'edgeq deploy' runs all stages again"

    about: About
    stages: dict[str, StageRecord]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One sentence about one topic (``accuracy``, ``parity``, ``meaning``, ``gate``, ``size`` or ``latency``)."""

    topic: str
    level: Level
    sentence: str

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Report(Result):
    """``report.json``: all results of a run, and what they mean.

    Attributes:
        edgeq: Version of edgeq that wrote it.
        about: What the run is of.
        accuracy: As in ``accuracy.json``.
        parity: As in ``parity.json``, with the checks on the evaluation data.
        ledger: As in ``ledger.json``.
        profile: As in ``profile.json``.
        training: How the training went; None for a recipe that does not train.
        verdicts: What the results mean, in plain sentences.
    """

    format: Literal["edgeq-report"] = dataclasses.field(default="edgeq-report", kw_only=True)
    version: Literal[2] = dataclasses.field(default=2, kw_only=True)
    __pydantic_config__ = STRICT

    edgeq: str
    about: About
    accuracy: Accuracy
    parity: ParityReport
    ledger: RunLedger
    profile: RunProfile
    training: Training | None = None
    verdicts: tuple[Verdict, ...] = ()
