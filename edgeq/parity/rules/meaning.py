"""Meaning: what a bundle makes of texts is what the model's own library makes of them.

The library is started on the float model's folder, so that tokens, truncation, prompts, pooling and scores are its
own, and the compressed model computes inside it. Then tokens and names must be equal, and numbers may differ by no more
than twice what noise of one ulp in front of every quantizer changes in the same calls. Compression cannot break the
rule, and whatever stands between texts and the graph can.
"""

from __future__ import annotations

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
    under_noise: Callable[[int], Sequence[Answer]],
    quantized_values: int,
) -> Check:
    """Demands the same names, and numbers within twice the envelope of noise, text by text.

    Args:
        stage: Name of the stage.
        samples: The texts.
        want: What the library made of them with the reference inside.
        got: What the stage made of them.
        under_noise: The library again, with the reference under noise of a seed.
        quantized_values: How many values one run of all samples rounds to int8.
    """
    rows = [row for row in zip(samples, want, got, strict=True) if not _is_refused(*row[1:])]
    fault = next((f"{sample.what}: {found}" for sample, *pair in rows if (found := _other_names(*pair))), None)
    if fault is not None or not rows:
        detail = fault or "no text was answered by both"
        return Check(f"{stage}, answers", "meaning", False, detail, {"texts": len(rows)})
    differences = [_difference(wanted, found) for _, wanted, found in rows]

    def noisy(seed: int) -> float:
        return max(_difference(a, b) for a, b in zip(want, under_noise(seed), strict=True) if not _is_refused(a, b))

    sizes = [_rms(wanted.numbers) for _, wanted, _ in rows if isinstance(wanted, Reading)]
    widest = max(wanted.numbers.size for _, wanted, _ in rows if isinstance(wanted, Reading))
    floor = float_error(widest, max(sizes))
    limit = max(floor, FACTOR * max(noisy(seed) for seed in range(FEWEST_NOISE_RUNS)))
    if not max(differences) <= limit:
        # Steps are rare in small models: only a run that shows one says what they look like.
        runs = noise_runs(noisy, lambda moved: [moved], quantized_values=quantized_values)
        limit = max(floor, FACTOR * max(runs))
    worst = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
    passed = bool(max(differences) <= limit) and bool(np.isfinite(differences).all())
    where = rows[worst][0].what
    detail = (
        f"{len(rows)} texts, numbers differ by rms {differences[worst]:.2e} at most ({where}; limit {limit:.2e}, "
        f"size {max(sizes):.2e})"
    )
    measured: dict[str, float | int | str] = {"texts": len(rows), "largest": differences[worst], "limit": limit}
    return Check(f"{stage}, answers", "meaning", passed, detail, measured)


def _is_refused(*answers: Answer) -> bool:
    return any(isinstance(answer, Refusal) for answer in answers)


def _other_names(wanted: Answer, found: Answer) -> str | None:
    if isinstance(wanted, Refusal) or isinstance(found, Refusal):
        return None
    if wanted.names and found.names and wanted.names != found.names:
        return f"names {_shown(found.names)} instead of {_shown(wanted.names)}"
    if wanted.numbers.shape != found.numbers.shape:
        return f"{found.numbers.size} numbers instead of {wanted.numbers.size}"
    return None


def _shown(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _difference(wanted: Answer, found: Answer) -> float:
    if isinstance(wanted, Refusal) or isinstance(found, Refusal) or wanted.numbers.shape != found.numbers.shape:
        return float("inf")
    return _rms(found.numbers - wanted.numbers)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
