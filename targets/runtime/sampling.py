"""How the next token is chosen from logits: the most likely one, or by chance. libedgeq does it (``sampling.c``)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgeq.errors import UsageError

_LARGEST_COUNT = (1 << 32) - 1
_LARGEST_SEED = (1 << 63) - 1
_SMALLEST_FACTOR, _LARGEST_FACTOR = 0.001, 1000.0
"""Of temperature and penalty; beyond them nothing is left of the logits."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; checked when it is made.

    Attributes:
        temperature: 0 takes the most likely token; 1 draws by the model's probabilities, less sharpens them.
        top_k: Draw from the k most likely tokens only; 0 from all.
        top_p: Draw from the most likely tokens that together have this probability only.
        repetition_penalty: Factor against tokens that are in the text already; 1 is none.
        seed: Start of the random numbers, in 0..2**63-1.

    Raises:
        UsageError: If a value is out of range, or has no effect because the temperature is 0.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        temperature, penalty = _number(self.temperature), _number(self.repetition_penalty)
        warm = _SMALLEST_FACTOR <= temperature <= _LARGEST_FACTOR
        _check_number("temperature", self.temperature, warm or temperature == 0, "in 0.001..1000, or 0")
        _check_integer("top_k", self.top_k, _LARGEST_COUNT)
        _check_number("top_p", self.top_p, 0 < _number(self.top_p) <= 1, "above 0 and at most 1")
        penal = _SMALLEST_FACTOR <= penalty <= _LARGEST_FACTOR
        _check_number("repetition_penalty", self.repetition_penalty, penal, "in 0.001..1000")
        _check_integer("seed", self.seed, _LARGEST_SEED)
        for name, off in (("top_k", 0), ("top_p", 1.0)):
            if self.temperature == 0 and getattr(self, name) != off:
                raise UsageError(f"{name} has no effect at temperature 0; give a temperature above 0")


def _number(value: object) -> float:
    """The value as a float; NaN, which is in no range, if it is no number."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]


def _check_number(name: str, value: object, fits: bool, allowed: str) -> None:
    if not fits:
        raise UsageError(f"{name} must be a number {allowed}, found {value!r}")


def _check_integer(name: str, value: object, most: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 0 <= value <= most:
        raise UsageError(f"{name} must be an integer in 0..{most}, found {value!r}")


GREEDY = Sampling()
"""The most likely token, always."""
