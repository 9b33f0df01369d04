"""How good the models of a run are: ``accuracy.json``, and ``predictions.json`` with the numbers of every example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from edgeq.results.base import STRICT, Result
from edgeq.results.parity import Check


@dataclasses.dataclass(frozen=True)
class Score:
    """What one stage reached: the metric, and other figures that go with it by name."""

    value: float
    others: dict[str, float] = dataclasses.field(default_factory=dict)

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Loss:
    """How much of the metric compression cost, with a paired bootstrap interval over the examples.

    Attributes:
        value: Metric of the float model minus metric of this one; of a perplexity the increase.
        low: Lower end of the interval.
        high: Upper end.
        retained: Metric of this model / metric of the float model; of a perplexity the other way round. None where the
            float model's is 0 or less, of which nothing can be kept.
    """

    value: float
    low: float
    high: float
    retained: float | None

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class Accuracy(Result):
    """``accuracy.json``: how good the float model, the compressed one and each bundle are on the same examples.

    Attributes:
        measured: Whether anything was measured; if not, all that follows is empty, and ``reason`` says why.
        reason: Why nothing was measured.
        metric: A name of :data:`edgeq.evaluate.metrics.METRICS`, or ``perplexity``.
        unit: What the examples are: ``examples`` or ``tokens``.
        examples: How many there were.
        data: The file that they are of.
        stages: Scores by stage; the float model comes first.
        losses: Losses of the other stages against the float model.
        checks: Parity rules on this metric: what bundles may differ by from PyTorch with the same weights.
    """

    format: Literal["edgeq-accuracy"] = dataclasses.field(default="edgeq-accuracy", kw_only=True)
    version: Literal[3] = dataclasses.field(default=3, kw_only=True)
    __pydantic_config__ = STRICT

    measured: bool
    reason: str = ""
    metric: str = ""
    unit: Literal["examples", "tokens"] = "examples"
    examples: int = 0
    data: str = ""
    stages: dict[str, Score] = dataclasses.field(default_factory=dict)
    losses: dict[str, Loss] = dataclasses.field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @property
    def reference(self) -> float:
        """The float model's metric."""
        return next(score.value for name, score in self.stages.items() if name not in self.losses)


@dataclasses.dataclass(frozen=True)
class Predictions(Result):
    """``predictions.json``: what each stage made of each example, for paired tests between runs.

    Attributes:
        metric: A name of :data:`edgeq.evaluate.metrics.METRICS`, or ``perplexity``.
        stages: By stage a row of numbers for each example, or of a perplexity the log-probability of each token.
        context: Of a perplexity the tokens of a window.
        data_sha256: Digest of the file of the examples.
    """

    format: Literal["edgeq-predictions"] = dataclasses.field(default="edgeq-predictions", kw_only=True)
    version: Literal[1] = dataclasses.field(default=1, kw_only=True)
    __pydantic_config__ = STRICT

    metric: str
    stages: Mapping[str, tuple[float | tuple[float, ...], ...]]
    context: int | None = None
    data_sha256: str = ""
