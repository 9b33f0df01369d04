"""What edgeq wants to reach beside the others, and whether it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.speed.setups import FLOOR, OWN, own_name

Against = Literal["best engine", "best engine at the same bits", "ONNX Runtime float32", "integer floor", "batch 1"]


@dataclasses.dataclass(frozen=True)
class Goal:
    """One wish.

    Attributes:
        work: Beginning of the names of works.
        recipe: Which of edgeq's setups.
        against: With whom it is compared.
        factor: How many times faster; for the floor how many times slower at most; for a batch of one how many times
            more texts a second.
    """

    work: str
    recipe: str
    against: Against
    factor: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a goal.

    Attributes:
        goal: The wish.
        found: The factor that was measured.
        low: Lower end of its confidence interval.
        high: Upper end.
        peer: Name of the one compared with.
    """

    goal: Goal
    found: float
    low: float
    high: float
    peer: str

    @property
    def is_met(self) -> bool:
        """Whether the measured factor reaches the wish."""
        if self.goal.against == "integer floor":
            return self.found <= self.goal.factor
        return self.found >= self.goal.factor


_W2, _W4, _W8, _GPT2 = "ptq-w2a8", "ptq-w4a8", "ptq-w8a8", "ptq-w2e2a8"
_W7 = "ptq-w7a8"
_SAME: Against = "best engine at the same bits"

_BEST: Against = "best engine"

GOALS = (
    *(
        Goal(f"BERT-base, {tokens} tokens", recipe, _BEST, factor)
        for tokens, factor in ((32, 1.3), (128, 1.3), (256, 1.25), (512, 1.2))
        for recipe in (_W2, _W8)
    ),
    *(Goal(f"BERT-base, {tokens} tokens", _W2, "ONNX Runtime float32", 3.5) for tokens in (32, 128, 256, 512)),
    Goal("BERT-base, 128 tokens", _W2, "integer floor", 1.45),
    Goal("BERT-base, 256 tokens", _W2, "integer floor", 1.6),
    *(Goal(f"BERT-base, {n} tokens", recipe, _SAME, 1.0) for n in (32, 128, 256, 512) for recipe in (_W4, _W8)),
    Goal("BERT-base, 8 x 128 tokens", _W2, _BEST, 1.2),
    *(Goal(f"MiniLM-L6, {tokens} tokens", recipe, _BEST, 1.5) for tokens in (16, 128) for recipe in (_W2, _W8)),
    Goal("GPT-2 small, prompt of 128", _GPT2, _BEST, 1.5),
    *(Goal("GPT-2 small, prompt of 128", recipe, _SAME, 1.0) for recipe in (_W4, _W8)),
    Goal("GPT-2 small, step after 160", _GPT2, _BEST, 3.0),
    *(Goal("GPT-2 small, step after 160", recipe, _SAME, 1.0) for recipe in (_W4, _W8)),
    Goal("GPT-2 small, step after 160, batch 4", _GPT2, "batch 1", 2.0),
    *(Goal(f"BART-base, 512 tokens in, 64 out{beams}", _W8, _BEST, 1.5) for beams in ("", ", 4 beams")),
    *(Goal("BERT-base, 128 tokens, AVX2 only", recipe, _BEST, 1.2) for recipe in (_W2, _W7, _W8)),
    *(Goal("MiniLM-L6, 128 tokens, AVX2 only", recipe, _BEST, 1.2) for recipe in (_W2, _W7, _W8)),
    *(Goal("GPT-2 small, prompt of 128, AVX2 only", recipe, _BEST, 1.2) for recipe in (_GPT2, _W8)),
)


def verdicts(entry: dict[str, Any]) -> list[Verdict]:
    """Returns what came of the goals of one entry of results.

    Args:
        entry: Entry of kind ``speed``. Goals whose setups did not take part are left out.
    """
    found = []
    for goal in GOALS:
        if goal.work != entry["name"]:
            continue
        ratios = _ratios(entry, goal)
        if ratios:
            ratio, low, high, peer = min(ratios)
            found.append(Verdict(goal, ratio, low, high, peer))
    return found


def _ratios(entry: dict[str, Any], goal: Goal) -> list[tuple[float, float, float, str]]:
    """Ratio, its interval and the peer's name, for every peer of a goal."""
    name = own_name(goal.recipe)
    rows = {row["name"]: row for row in entry["engines"] if not row["missing"]}
    if name not in rows:
        return []
    versus = rows[name]["versus"]
    if goal.against == "integer floor":
        ratio, low, high = versus[FLOOR]["ratio"], versus[FLOOR]["low"], versus[FLOOR]["high"]
        return [(1 / ratio, 1 / high, 1 / low if low else float("inf"), FLOOR)]
    batch = entry["work"]["batch"] if goal.against == "batch 1" else 1
    names = _peers(rows, goal.against, name)
    return [(batch * v["ratio"], batch * v["low"], batch * v["high"], n) for n, v in versus.items() if n in names]


def _peers(rows: dict[str, dict[str, Any]], against: Against, name: str) -> Sequence[str]:
    others = [row for row in rows.values() if not row["name"].startswith(OWN) and row["name"] != FLOOR]
    if against == "batch 1":
        return [f"{name}, batch 1"]
    if against == "ONNX Runtime float32":
        return [against]
    same = against == _SAME
    return [row["name"] for row in others if not same or row["bits"] == rows[name]["bits"]]
