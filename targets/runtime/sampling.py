"""How the next token is chosen from logits: the likeliest one, or by chance.

``edgeq-run`` chooses in the same way (runner/sampling.c): the same logits and the same seed give the same tokens. So
everything here is defined down to the bit: float64, only operations that IEEE 754 rounds exactly, sums in a fixed
order, ties to the lower id.

1. Repetition penalty, in float32: the logit of every token that the sequence holds, prompt included, is divided by
   the penalty if it is positive and multiplied with it otherwise. Tokens that may not come get the logit -infinity.
2. Temperature 0 takes the largest logit. Otherwise the weight of a token is ``exp((logit - largest) / temperature)``.
3. ``top_k`` keeps the k largest logits.
4. ``top_p`` then goes through the kept tokens from the largest logit and keeps them until the sum of their weights
   reaches ``top_p`` of the whole, which is summed by id.
5. The token is the first, by id, where the running sum of the kept weights exceeds ``random * total``.

Random numbers are those of SplitMix64 (Steele, Lea, Flood 2014), started at the seed: ``(x >> 11) * 2**-53``. Every
sequence has a generator of its own, so a prompt gives the same text alone and in a batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from edgeq.errors import FormatError, UsageError
from edgeq.targets.runtime.numerics import exp_of_negative

_WORD = (1 << 64) - 1
_LARGEST_SEED = (1 << 63) - 1
_SMALLEST_FACTOR, _LARGEST_FACTOR = 0.001, 1000.0
"""Of temperature and penalty; beyond them nothing is left of the logits."""
_FIRST_NUCLEUS = 64
"""Tokens among which ``top_p`` looks first; then among eight times as many. The result does not depend on it."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; checked when it is made.

    Attributes:
        temperature: 0 takes the likeliest token; 1 draws by the model's probabilities, less sharpens them.
        top_k: Draw from the k likeliest tokens only; 0 from all.
        top_p: Draw from the likeliest tokens that together have this probability only.
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
        _check_integer("top_k", self.top_k, _WORD >> 32)
        _check_number("top_p", self.top_p, 0 < _number(self.top_p) <= 1, "above 0 and at most 1")
        penal = _SMALLEST_FACTOR <= penalty <= _LARGEST_FACTOR
        _check_number("repetition_penalty", self.repetition_penalty, penal, "in 0.001..1000")
        _check_integer("seed", self.seed, _LARGEST_SEED)
        for name, off in (("top_k", 0), ("top_p", 1.0)):
            if self.temperature == 0 and getattr(self, name) != off:
                raise UsageError(f"{name} has no effect at temperature 0; give a temperature above 0")


class Sampler:
    """Chooses the tokens of one sequence.

    Args:
        sampling: How.
        prompt: The tokens before the first that is chosen.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._random = SplitMix64(sampling.seed)
        self._seen = set(prompt)

    def choose(self, logits: np.ndarray, *, banned: Sequence[int] = ()) -> int:
        """Returns the next token and counts it as part of the sequence.

        Args:
            logits: float32 ``[vocabulary]``.
            banned: Tokens that it must not be.

        Raises:
            FormatError: If the logits are not numbers.
            UsageError: If no token is left.
        """
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            logits = penalised(logits, sorted(self._seen), np.float32(sampling.repetition_penalty))
        check_finite(logits)
        if banned:
            logits = without(logits, banned)
            if not np.isfinite(logits).any():
                raise UsageError("no token is left that may come next; allow repetitions, or ask for fewer tokens")
        if sampling.temperature == 0:
            token = int(np.argmax(logits))
        else:
            token = _drawn(logits, sampling, self._random.next_fraction())
        self.take(token)
        return token

    def take(self, token: int) -> None:
        """Counts a token, however it was chosen, as part of the sequence."""
        self._seen.add(token)


class SplitMix64:
    """A random number generator of 64 bits of state.

    Args:
        seed: Its state.
    """

    def __init__(self, seed: int) -> None:
        self._state = seed

    def next_fraction(self) -> float:
        """Returns a multiple of 2**-53 in [0, 1)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        bits = self._state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _WORD
        return ((bits ^ (bits >> 31)) >> 11) * 2.0**-53


def check_finite(logits: np.ndarray) -> None:
    """Checks that a model's logits are numbers.

    Raises:
        FormatError: If they are not.
    """
    if not np.isfinite(logits).all():
        raise FormatError("the model's logits are not finite; compile the bundle again from a sound checkpoint")


def penalised(values: np.ndarray, seen: Sequence[int], penalty: np.floating | float) -> np.ndarray:
    """Returns values of which those of ``seen`` tokens are divided by the penalty if positive, and else multiplied."""
    result = values.copy()
    chosen = values[list(seen)]
    result[list(seen)] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return result


def without(values: np.ndarray, banned: Sequence[int]) -> np.ndarray:
    """Returns values of which those of ``banned`` tokens are -infinity."""
    result = values.copy()
    result[list(banned)] = -np.inf
    return result


def _drawn(logits: np.ndarray, sampling: Sampling, fraction: float) -> int:
    """Steps 2 to 5 of the module's description."""
    limited = 0 < sampling.top_k < logits.size
    ids = largest(logits, sampling.top_k) if limited else np.arange(logits.size)
    kept = logits[ids] if limited else logits
    distances = kept.astype(np.float64)
    distances -= float(logits.max())
    distances /= float(sampling.temperature)
    weights = exp_of_negative(distances)
    if sampling.top_p < 1:
        chosen = _nucleus(kept, weights, float(sampling.top_p))
        ids, weights = ids[chosen], weights[chosen]
    sums = np.cumsum(weights)  # accumulates one after the other; sum() would not
    position = int(np.searchsorted(sums, fraction * sums[-1], side="right"))
    return int(ids[min(position, len(ids) - 1)])


def _nucleus(logits: np.ndarray, weights: np.ndarray, top_p: float) -> np.ndarray:
    """Positions, ascending, of the likeliest tokens that together have ``top_p`` of the weight.

    Few tokens usually have it, and to find the few largest is many times faster than to sort all.
    """
    wanted = top_p * np.cumsum(weights)[-1]
    count = min(_FIRST_NUCLEUS, logits.size)
    while True:
        places = largest(logits, count)
        places = places[np.argsort(-logits[places], kind="stable")]
        sums = np.cumsum(weights[places])
        if sums[-1] >= wanted or count == logits.size:
            kept = 1 + int(np.searchsorted(sums, wanted, side="left"))
            return np.sort(places[:kept])
        count = min(count * 8, logits.size)


def largest(logits: np.ndarray, count: int) -> np.ndarray:
    """Ids of the ``count`` largest logits, ascending; of equal ones the first. 0 keeps all."""
    if count == 0 or count >= logits.size:
        return np.arange(logits.size)
    threshold = np.partition(logits, logits.size - count)[logits.size - count]
    above = np.flatnonzero(logits > threshold)
    equal = np.flatnonzero(logits == threshold)[: count - above.size]
    return np.sort(np.concatenate((above, equal)))


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
"""The likeliest token, always."""
