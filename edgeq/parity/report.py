"""What a parity run found, as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Rule = Literal["isolated", "end-to-end", "task", "bit-identical", "distance"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule applied to one stage.

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


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Everything that was checked.

    Attributes:
        checks: In the order of the stages.
        conditions: What the stages were run on: batches, lengths, texts, noise runs.
    """

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
        """Returns JSON values."""
        return {
            "passed": self.passed,
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "conditions": self.conditions,
        }
