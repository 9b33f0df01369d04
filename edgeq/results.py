"""What the stages of a run hand to each other and to the report: typed, in one shape each, with a version.

Each file is a JSON object with ``format`` and ``version`` and the fields of one of these classes; :func:`schemas`
publishes them as JSON Schema. A file of another version is refused: the run is then deployed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from edgeq.errors import FormatError

Rule = Literal["isolated", "end-to-end", "task", "bit-identical", "distance", "meaning"]
_CONFIG: dict[str, Any] = {"extra": "forbid", "ser_json_inf_nan": "constants"}


class Result:
    """A file of a run; subclasses are frozen dataclasses."""

    format: ClassVar[str]
    version: ClassVar[int]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]  # subclasses are dataclasses
        return {"format": self.format, "version": self.version, **fields}

    @classmethod
    def from_json(cls, table: Mapping[str, Any], file: Path) -> Self:
        """Reads what :meth:`to_json` returned.

        Args:
            table: The contents of the file.
            file: Its name, for messages.

        Raises:
            FormatError: If the values are of another kind, version or shape.
        """
        import pydantic

        if (table.get("format"), table.get("version")) != (cls.format, cls.version):
            found = f"{table.get('format')!r} version {table.get('version')!r}"
            raise FormatError(f"{file} should be {cls.format} version {cls.version}, found {found}; deploy again")
        fields = {key: value for key, value in table.items() if key not in ("format", "version")}
        try:
            result: Self = _adapter(cls).validate_python(fields)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise FormatError(f"{file} is damaged ({place}: {first['msg']}); deploy again") from None
        return result


def _adapter(cls: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(cls)


@dataclasses.dataclass(frozen=True)
class Check:
    """One parity rule applied to one stage.

    Attributes:
        stage: Which stage, such as ``onnxruntime`` or ``tvm cortex-a76``.
        rule: Which rule; ``distance`` is a measurement that cannot fail.
        passed: Whether the rule held.
        detail: One line with what was measured and the limit.
        measured: The numbers by name.
    """

    stage: str
    rule: Rule
    passed: bool
    detail: str
    measured: dict[str, float | int | str] = dataclasses.field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class ParityReport(Result):
    """``parity.json``: everything that was checked.

    Attributes:
        checks: In the order of the stages.
        conditions: What the stages were run on: batches, lengths, texts, noise runs.
    """

    format = "edgeq-parity"
    version = 2
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "ignore"}  # ``passed``, which follows from the checks

    checks: tuple[Check, ...]
    conditions: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every rule held."""
        return all(check.passed for check in self.checks)

    @property
    def first_breach(self) -> Check | None:
        """The first check that failed: later stages may only repeat its fault."""
        return next((check for check in self.checks if not check.passed), None)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values, ``passed`` included."""
        return {**super().to_json(), "passed": self.passed}

    def with_data(self, accuracy: Accuracy) -> ParityReport:
        """Returns the same with the checks on the evaluation data: what both `deploy` and `edgeq parity` judge by."""
        return dataclasses.replace(self, checks=(*self.checks, *accuracy.checks))


@dataclasses.dataclass(frozen=True)
class Score:
    """What one stage reached: the metric, and for correlations Pearson's as well."""

    value: float
    pearson: float | None = None


@dataclasses.dataclass(frozen=True)
class Loss:
    """How much of the metric compression cost, with a paired bootstrap interval over the examples.

    Attributes:
        value: Metric of the float model minus metric of this one; of a perplexity the increase.
        low: Lower end of the interval.
        high: Upper end.
        retained: Metric of this model / metric of the float model; of a perplexity the other way round.
    """

    value: float
    low: float
    high: float
    retained: float


@dataclasses.dataclass(frozen=True)
class Accuracy(Result):
    """``accuracy.json``: how good the float model, the compressed one and each bundle are on the same examples.

    Attributes:
        measured: Whether anything was measured; if not, all that follows is empty, and ``reason`` says why.
        reason: Why nothing was measured.
        metric: ``spearman``, ``accuracy`` or ``perplexity``.
        unit: What the examples are: ``examples`` or ``tokens``.
        examples: How many there were.
        data: The file that they are of.
        stages: Scores by stage; the float model comes first.
        losses: Losses of the other stages against the float model.
        checks: Parity rules on this metric: what bundles may differ by from PyTorch with the same weights.
    """

    format = "edgeq-accuracy"
    version = 2
    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

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


def accuracy_of(report: Mapping[str, Any]) -> Accuracy:
    """Returns the accuracy in the contents of ``report.json``.

    Raises:
        FormatError: If it is damaged.
    """
    return Accuracy.from_json(report["accuracy"], Path("report.json"))


FILES: dict[str, type[Result]] = {"accuracy.json": Accuracy, "parity.json": ParityReport}
"""Files of a run by name."""


def schemas() -> dict[str, Any]:
    """Returns the JSON Schema of each file."""
    found = {}
    for name, cls in FILES.items():
        schema = _adapter(cls).json_schema()
        schema["properties"] |= {"format": {"const": cls.format}, "version": {"const": cls.version}}
        found[name] = schema
    return found
