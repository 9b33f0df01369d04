"""The proof of a run: ``parity.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from edgeq.results.base import STRICT, WITH_DERIVED, Result


@dataclasses.dataclass(frozen=True)
class Check:
    """One parity rule applied to one stage.

    Attributes:
        stage: Which stage, such as ``onnxruntime`` or ``tvm cortex-a76``.
        rule: Which rule, such as ``isolated``; ``distance`` is a measurement that cannot fail.
        passed: Whether the rule held.
        detail: One line with what was measured and the limit.
        measured: The numbers by name; None stands for one that is not finite, as a broken stage has.
    """

    stage: str
    rule: str
    passed: bool
    detail: str
    measured: Mapping[str, float | int | str | None] = dataclasses.field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Keeps what JSON can say, so that a report that is read back is the same."""
        infinite = [name for name, one in self.measured.items() if isinstance(one, float) and not math.isfinite(one)]
        object.__setattr__(self, "measured", {**self.measured, **dict.fromkeys(infinite)})


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What the stages were compared on. What a kind of model does not have is empty.

    Attributes:
        noise_runs: How often the reference was run under noise.
        feeds: Shapes ``(batch, tokens)`` of an encoder's inputs.
        texts: How many of these inputs are texts, read one by one.
        prompts: Tokens of the prompts of a decoder, batch by batch.
        encoder_inputs: Tokens of the encoder inputs of an encoder-decoder, batch by batch.
        new_tokens: Tokens that were generated in each batch.
        library: Library that texts were compared with; empty if they were not.
        not_checked: What was not checked, each with the reason.
    """

    noise_runs: int = 0
    feeds: tuple[tuple[int, ...], ...] = ()
    texts: int = 0
    prompts: tuple[tuple[int, ...], ...] = ()
    encoder_inputs: tuple[tuple[int, ...], ...] = ()
    new_tokens: tuple[int, ...] = ()
    library: str = ""
    not_checked: tuple[str, ...] = ()

    __pydantic_config__ = STRICT


@dataclasses.dataclass(frozen=True)
class ParityReport(Result):
    """``parity.json``: everything that was checked; ``passed`` is written as well.

    Attributes:
        checks: In the order of the stages.
        conditions: What the stages were compared on.
    """

    format: Literal["edgeq-parity"] = dataclasses.field(default="edgeq-parity", kw_only=True)
    version: Literal[3] = dataclasses.field(default=3, kw_only=True)
    __pydantic_config__ = WITH_DERIVED
    derived: ClassVar[tuple[str, ...]] = ("passed",)

    checks: tuple[Check, ...]
    conditions: Conditions = Conditions()

    @property
    def passed(self) -> bool:
        """Whether every rule held."""
        return all(check.passed for check in self.checks)

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def first_breach(self) -> Check | None:
        """The first check that failed: later stages may only repeat its fault."""
        return next(iter(self.broken), None)

    def with_data(self, checks: Sequence[Check]) -> ParityReport:
        """Returns the same with the checks on the evaluation data: what both `deploy` and `edgeq parity` judge by."""
        return dataclasses.replace(self, checks=(*self.checks, *checks))
