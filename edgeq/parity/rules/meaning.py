"""Meaning: what a bundle makes of texts is what the model's own library makes of them.

The library is started on the float model's folder, so that tokens, truncation, prompts, pooling and scores are its
own, and the compressed model computes inside it. Then tokens and names must be equal, and numbers may differ by no more
than twice what noise of one ulp in front of every quantizer changes in the same calls. Compression cannot break the
rule, and whatever stands between texts and the graph can.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from edgeq.parity.meaning.library import Reading, Refusal
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.rules.end_to_end import FACTOR, FEWEST_NOISE_RUNS, float_error, noise_runs
from edgeq.results import Check

Answer = Reading | Refusal
_SHOWN = 60


def check_tokens(stage: str, samples: Sequence[Sample], want: Sequence[Answer], got: Sequence[Answer]) -> Check:
    """Demands that the model is called with the same tokens.

    A text that the library fails on must be refused. One that it reads may be refused where the sample says so.

    Args:
        stage: Name of the stage.
        samples: The texts.
        want: What the library made of them.
        got: What the stage made of them.
    """
    faults, refused = [], []
    for sample, wanted, found in zip(samples, want, got, strict=True):
        fault = _fault_of_tokens(sample, wanted, found)
        if fault is not None:
            faults.append(f"{sample.what}: {fault}")
        elif isinstance(found, Refusal):
            refused.append(sample.what)
    measured: dict[str, float | int | str] = {
        "texts": len(samples),
        "different": len(faults),
        "refused": len(refused),
    }
    if faults:
        detail = f"{len(faults)} of {len(samples)} texts are not read as the library reads them; {faults[0]}"
    else:
        count = len(samples) - len(refused)
        detail = f"{count} texts are read token for token as the library reads them"
        detail += f"; refused: {', '.join(refused)}" if refused else ""
    return Check(f"{stage}, tokens", "meaning", not faults, detail, measured)


def _fault_of_tokens(sample: Sample, wanted: Answer, found: Answer) -> str | None:
    if isinstance(found, Refusal):
        if isinstance(wanted, Refusal) or sample.may_refuse:
            return None
        return f"refused ({found.why})"
    if isinstance(wanted, Refusal):
        return f"answered, though the library fails on it ({wanted.why})"
    if found.ids != wanted.ids:
        at = next((at for at, pair in enumerate(zip(found.ids, wanted.ids, strict=False)) if pair[0] != pair[1]), None)
        where = "one goes on where the other ends" if at is None else f"first at token {at + 1}: "
        if at is not None:
            where += f"{found.ids[at]} instead of {wanted.ids[at]}"
        return f"{len(found.ids)} tokens against {len(wanted.ids)}, {where}"
    if None not in (found.types, wanted.types) and found.types != wanted.types:
        return "the same tokens with other token types"
    return None


def check_answers(
    stage: str,
    samples: Sequence[Sample],
    want: Sequence[Answer],
    got: Sequence[Answer],
    *,
    clean: Sequence[Answer],
    under_noise: Callable[[int, int], Answer],
    values_of_a_token: int,
) -> Check:
    """Demands the same names, and numbers within twice the envelope of noise, text by text.

    Args:
        stage: Name of the stage.
        samples: The texts.
        want: What the library made of them.
        got: What the stage made of them.
        clean: What the library made of them with the reference inside.
        under_noise: The library on the text of a number, with the reference under noise of a seed.
        values_of_a_token: How many values the reference rounds to int8 for each token.
    """
    noise = _Noise(clean, under_noise)
    differences: dict[int, float] = {}
    sizes: list[np.ndarray] = []
    for number, (sample, wanted, found) in enumerate(zip(samples, want, got, strict=True)):
        if isinstance(wanted, Refusal) or isinstance(found, Refusal):
            continue
        if (fault := _other_names(wanted, found)) is None:
            differences[number] = _difference(wanted, found)
            sizes.append(wanted.numbers)
        elif found.names not in noise.names_of(number):
            detail = f"{sample.what}: {fault}"
            return Check(f"{stage}, answers", "meaning", False, detail, {"texts": len(samples)})
    if not differences:
        return Check(f"{stage}, answers", "meaning", False, "no text was answered alike", {"texts": 0})
    size = max(map(_rms, sizes))
    where, worst = max(differences.items(), key=lambda item: item[1] if np.isfinite(item[1]) else np.inf)
    limit = float_error(max(array.size for array in sizes), size)
    if not worst <= limit:
        limit = max(limit, FACTOR * max(noise.largest(seed) for seed in range(FEWEST_NOISE_RUNS)))
    if not worst <= limit:
        # Steps are rare in small models: only a run that shows one says what they look like.
        values = values_of_a_token * noise.tokens_of(where)
        runs = noise_runs(lambda seed: noise.moved(seed, where), lambda moved: [moved], quantized_values=values)
        limit = max(limit, FACTOR * max(runs))
    detail = (
        f"{len(differences)} texts, numbers differ by rms {worst:.2e} at most ({samples[where].what}; limit "
        f"{limit:.2e}, size {size:.2e})"
    )
    measured: dict[str, float | int | str] = {"texts": len(differences), "largest": worst, "limit": limit}
    return Check(f"{stage}, answers", "meaning", bool(worst <= limit), detail, measured)


class _Noise:
    """What the library says while the model inside it computes under noise.

    Args:
        clean: What it says without.
        read: Lets it read the text of a number under noise of a seed.
    """

    def __init__(self, clean: Sequence[Answer], read: Callable[[int, int], Answer]) -> None:
        self._clean = clean
        self._read = functools.cache(read)

    def names_of(self, number: int) -> set[tuple[str, ...] | None]:
        """Returns the names that the runs gave for one text: where scores are nearly equal, noise decides."""
        answers = [self._read(seed, number) for seed in range(FEWEST_NOISE_RUNS)]
        return {answer.names for answer in answers if isinstance(answer, Reading)}

    def tokens_of(self, number: int) -> int:
        """Returns how many tokens one text has."""
        wanted = self._clean[number]
        return 0 if isinstance(wanted, Refusal) else len(wanted.ids)

    def largest(self, seed: int) -> float:
        """Returns by how much a run moved the numbers of the text that it moved most."""
        return max(self.moved(seed, number) for number in range(len(self._clean)))

    def moved(self, seed: int, number: int) -> float:
        """Returns by how much a run moved the numbers of one text."""
        wanted = self._clean[number]
        found = wanted if isinstance(wanted, Refusal) else self._read(seed, number)
        if isinstance(wanted, Refusal) or isinstance(found, Refusal) or _other_names(wanted, found) is not None:
            return 0.0
        return _difference(wanted, found)


def _other_names(wanted: Reading, found: Reading) -> str | None:
    if None not in (wanted.names, found.names) and wanted.names != found.names:
        return f"{_shown(found.names)} instead of {_shown(wanted.names)}"
    if wanted.numbers.shape != found.numbers.shape:
        return f"{found.numbers.size} numbers instead of {wanted.numbers.size}"
    return None


def _shown(names: Sequence[str] | None) -> str:
    text = ", ".join(names or ["nothing"])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _difference(wanted: Reading, found: Reading) -> float:
    return _rms(found.numbers - wanted.numbers)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2))) if values.size else 0.0
