"""Several runs beside each other: quality against bytes, and paired tests on the same examples."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeq.results.base import STRICT, Result


@dataclasses.dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison: a run's compressed one, or the float one that it came from.

    Attributes:
        label: Name of the model and its recipe.
        is_float: Whether it is not compressed.
        value: Its metric.
        bytes: Bytes of its tensors as stored.
        ratio: How many times smaller than float32 that is.
        median: Median latency in seconds; None if it was not measured.
        speedup: What its run says against ONNX Runtime float32.
        outdone_by: Label of a model that is smaller and no worse; empty if there is none.
    """

    label: str
    is_float: bool
    value: float
    bytes: int
    ratio: float
    median: float | None = None
    speedup: str = ""
    outdone_by: str = ""

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class RunComparison(Result):
    """What ``edgeq report`` writes of several runs.

    Attributes:
        edgeq: Version of edgeq that wrote it.
        of: Names of the models.
        metric: What was measured.
        unit: What the examples are.
        examples: How many there were.
        data: The file that they are of.
        models: The smallest first.
    """

    format: Literal["edgeq-comparison"] = dataclasses.field(default="edgeq-comparison", kw_only=True)
    version: Literal[2] = dataclasses.field(default=2, kw_only=True)
    __pydantic_config__ = STRICT
    fix = "run 'edgeq report' again"

    edgeq: str
    of: str
    metric: str
    unit: str
    examples: int
    data: str
    models: tuple[ComparedModel, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model against the first one, on the same examples.

    Attributes:
        label: The model.
        value: Its metric.
        difference: Its metric minus that of the first one.
        low: Lower end of the 95% interval of the difference (paired bootstrap).
        high: Upper end.
        p: Probability of a difference as large as this one between two models that are equally good: McNemar's exact
            test for shares of right answers, else exchanging the two models' answers example by example (window by
            window).
        verdict: Whether it is better or worse than the first one.
        needed: About how many examples would tell, where these do not; None where they do, or nothing differs.
    """

    label: str
    value: float
    difference: float
    low: float
    high: float
    p: float
    verdict: Literal["better", "worse", "cannot tell"]
    needed: int | None

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The model that the others are compared with."""

    label: str
    value: float

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class PairedTests(Result):
    """What ``edgeq compare --json`` prints.

    Attributes:
        metric: What was measured.
        examples: On how many examples.
        first: The model that the others are compared with.
        models: The others.
    """

    format: Literal["edgeq-paired-tests"] = dataclasses.field(default="edgeq-paired-tests", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT

    metric: str
    examples: int
    first: Baseline
    models: tuple[Difference, ...]
