"""What the stages of a run hand to each other and to the report: typed, in one shape each, with a version.

Each file is a JSON object with ``format`` and ``version`` and the fields of one of these classes; :func:`schemas`
publishes them as JSON Schema. A file of another version is refused: the run is then deployed again.
"""

from __future__ import annotations

import dataclasses
import math
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
        measured: The numbers by name; None stands for one that is not finite, as a broken stage has.
    """

    stage: str
    rule: Rule
    passed: bool
    detail: str
    measured: Mapping[str, float | int | str | None] = dataclasses.field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    def __post_init__(self) -> None:
        """Keeps what JSON can say, so that a report that is read back is the same."""
        infinite = [name for name, one in self.measured.items() if isinstance(one, float) and not math.isfinite(one)]
        object.__setattr__(self, "measured", {**self.measured, **dict.fromkeys(infinite)})


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
    """What one stage reached: the metric, and other figures that go with it by name."""

    value: float
    others: dict[str, float] = dataclasses.field(default_factory=dict)


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

    format = "edgeq-accuracy"
    version = 3
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


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """Where the bytes of one matrix, or of one float tensor, are.

    Attributes:
        tensor: Name of the module (low-bit) or of the tensor (float).
        kind: ``"linear"``, ``"embedding"``, ``"float"``, or ``"integers"`` for what a graph computes shapes with.
        shape: Logical shape: ``(N, K)`` for a low-bit matrix.
        nominal_bits: Bits of one code, or of one float.
        stored_bits: All bits stored for this row, divided by the number of weights.
        code_bytes: Codes without padding, rounded up to a byte.
        scale_bytes: Scales.
        padding_bytes: Bytes that only fill up tiles.
        float_bytes: Bytes of a tensor that is stored as floats (or integers).
        reason: Why it stayed float; None for a low-bit matrix.

    All bytes count every copy: each graph of an encoder-decoder stores its small tensors itself.
    """

    tensor: str
    kind: str
    shape: tuple[int, ...]
    nominal_bits: int
    stored_bits: float
    code_bytes: int
    scale_bytes: int
    padding_bytes: int
    float_bytes: int
    reason: str | None

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    @property
    def weights(self) -> int:
        """Number of weights, each counted once; integers of a graph are none."""
        return 0 if self.kind == "integers" else math.prod(self.shape)

    @property
    def is_low_bit(self) -> bool:
        """Whether it is a matrix of codes."""
        return self.kind in ("linear", "embedding")

    @property
    def stored_bytes(self) -> int:
        """All bytes of this row."""
        return self.code_bytes + self.scale_bytes + self.padding_bytes + self.float_bytes


@dataclasses.dataclass(frozen=True)
class LedgerTotals:
    """Sums of a model's ledger; :class:`edgeq.ledger.Ledger` says what each is."""

    weights: int
    replaced_weights: int
    stored_bytes: int
    code_bytes: int
    scale_bytes: int
    padding_bytes: int
    float_bytes: int
    float32_bytes: int
    ratio: float
    paper_bytes: int
    paper_ratio: float
    tensor_file_bytes: int
    folder_bytes: int

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """What pruning a vocabulary saved.

    Attributes:
        tokens: Rows of tokens that stayed.
        of: Rows that there were.
        left_out_bytes: What the others would take, stored as those that stayed.
    """

    tokens: int
    of: int
    left_out_bytes: int

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class StoredBytes:
    """The ledger of one model as it is written down.

    Attributes:
        path: What was read.
        form: ``"checkpoint"``, ``"onnx"`` or ``"bundle"``.
        totals: Sums.
        rows: One a low-bit matrix or float tensor, in stored order.
        vocabulary: Tokens that were left out; None where all stayed.
        int8_attention: How many self-attentions are int8.
    """

    path: str
    form: str
    totals: LedgerTotals
    rows: tuple[LedgerRow, ...]
    vocabulary: LeftOut | None = None
    int8_attention: int = 0

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class RunLedger(Result):
    """``ledger.json``: the bytes of the float model's graph, and of what each stage wrote; bundles by target."""

    format = "edgeq-ledger"
    version = 1
    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    float: StoredBytes
    checkpoint: StoredBytes
    onnx: StoredBytes
    bundles: dict[str, StoredBytes]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Summary of one program's latencies, in seconds.

    Attributes:
        median: Half of the calls were faster.
        p95: 95 of 100 calls were faster.
        spread: Median absolute deviation from the median.
        fastest: The smallest latency.
        calls: How many calls were timed.
    """

    median: float
    p95: float
    spread: float
    fastest: float
    calls: int

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class SpeedupClaim:
    """What may be said of a bundle's speed against a baseline.

    Attributes:
        ratio: Baseline time / bundle time; None where nothing may be claimed.
        low: Lower end of its confidence interval, or None.
        high: Upper end, or None.
        confidence: Probability that the interval holds the true median ratio.
        rounds: Number of rounds.
        beyond_noise: Whether a difference may be claimed.
        busy: Whether none may be because other programs took too much of the processors.
        sentence: The claim in words.
    """

    ratio: float | None
    low: float | None
    high: float | None
    confidence: float
    rounds: int
    beyond_noise: bool
    busy: bool
    sentence: str

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class Operator:
    """Time of one kernel in one call of the model: calls, seconds, and share of all kernels' time."""

    name: str
    calls: int
    seconds: float
    share: float

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG


@dataclasses.dataclass(frozen=True)
class Profile:
    """Latencies of one bundle and of the baselines.

    Attributes:
        bundle: Path of the bundle.
        target: Name of its target.
        sequence: Tokens in each text; of a decoder one step is timed, with so many tokens in the cache.
        batch: Texts in a call.
        threads: Threads of bundle and baselines.
        rounds: Rounds in which bundle and baselines took turns.
        timings: Seconds a call, of the bundle (``edgeq``) and of each baseline.
        speedups: Of the bundle over each baseline.
        operators: Kernels of the bundle, longest first.
        missing: Baselines that were not measured, with the reason.
        machine: Processor, governor, load and versions.
        others: Share of the machine's processor time that other programs took meanwhile; None if unknown.
        step: Whether a call is a decoder's step.
        source: Tokens of each encoder input of an encoder-decoder before the step; 0 for other models.
        reading: Whether a call is the encoder's.
    """

    bundle: str
    target: str
    sequence: int
    batch: int
    threads: int
    rounds: int
    timings: dict[str, Timing]
    speedups: dict[str, SpeedupClaim]
    operators: tuple[Operator, ...]
    missing: dict[str, str]
    machine: dict[str, str]
    others: float | None
    step: bool = False
    source: int = 0
    reading: bool = False

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class RunProfile(Result):
    """``profile.json``: latencies on this machine by bundle, and why those of the others were not measured."""

    format = "edgeq-profile"
    version = 1
    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    measured: dict[str, Profile]
    not_measured: dict[str, str]


def accuracy_of(report: Mapping[str, Any]) -> Accuracy:
    """Returns the accuracy in the contents of ``report.json``.

    Raises:
        FormatError: If it is damaged.
    """
    return Accuracy.from_json(report["accuracy"], Path("report.json"))


def ledger_of(report: Mapping[str, Any]) -> RunLedger:
    """Returns the ledger in the contents of ``report.json``; see :func:`accuracy_of`."""
    return RunLedger.from_json(report["ledger"], Path("report.json"))


def profile_of(report: Mapping[str, Any]) -> RunProfile:
    """Returns the profile in the contents of ``report.json``; see :func:`accuracy_of`."""
    return RunProfile.from_json(report["profile"], Path("report.json"))


FILES: dict[str, type[Result]] = {
    "accuracy.json": Accuracy,
    "parity.json": ParityReport,
    "ledger.json": RunLedger,
    "profile.json": RunProfile,
}
"""Files of a run by name."""


def schemas() -> dict[str, Any]:
    """Returns the JSON Schema of each file."""
    found = {}
    for name, cls in FILES.items():
        schema = _adapter(cls).json_schema()
        schema["properties"] |= {"format": {"const": cls.format}, "version": {"const": cls.version}}
        found[name] = schema
    return found
