"""Meaning of models that generate text: a bundle generates what ``generate`` does with the model's own settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from edgeq.parity.meaning.generation import Generated, Generator
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.rules.end_to_end import FACTOR, FEWEST_NOISE_RUNS
from edgeq.results import Check

Noise = Callable[[int], AbstractContextManager[None]]
_INCOMPLETE = "\ufffd"


@dataclasses.dataclass(frozen=True)
class BundleText:
    """A text that a bundle generated.

    Attributes:
        ids: New tokens, the one that ended the text included.
        text: The text.
        score: With beam search its score, else None.
        full: Whether it ended because the bundle's context is full.
    """

    ids: list[int]
    text: str
    score: float | None
    full: bool


def check_generated(
    stage: str,
    library: Generator,
    samples: Sequence[Sample],
    got: Sequence[BundleText],
    *,
    new_tokens: Sequence[int | None],
    noise: Noise,
) -> Check:
    """Demands the library's tokens, up to the first choice that noise could change, and its text for the same tokens.

    Args:
        stage: Name of the stage.
        library: With the reference inside.
        samples: The prompts.
        got: What the stage made of them, without drawing by chance.
        new_tokens: Tokens that were asked for.
        noise: Puts the reference under noise of a seed.
    """
    faults, unclear = [], 0
    for sample, found, count in zip(samples, got, new_tokens, strict=True):
        wanted = library.generate(sample, count)
        fault = _fault(library, sample, wanted, found, noise)
        unclear += fault is None and found.ids != wanted.ids
        if fault is None and _bare(text := library.decode(found.ids)) != _bare(found.text):
            fault = f"its tokens are decoded to {found.text!r:.60} instead of {text!r:.60}"
        if fault is not None:
            faults.append(f"{sample.what}: {fault}")
    measured: dict[str, float | int | str] = {"texts": len(samples), "different": len(faults), "unclear": unclear}
    how = f"{library.beams} beams" if library.beams > 1 else "greedy"
    detail = (
        f"{len(faults)} of {len(samples)} texts are not generated as the library generates them; {faults[0]}"
        if faults
        else f"{len(samples)} texts are generated as the library generates them ({how}; {unclear} differ from a choice "
        "on that noise changes)"
    )
    return Check(f"{stage}, generated texts", "meaning", not faults, detail, measured)


def _bare(text: str) -> str:
    """A text without half a character at its end, and without the spaces before its first word.

    A library decodes new tokens as if a text began with them, and a bundle as what follows a prompt.
    """
    return text.rstrip(_INCOMPLETE).lstrip(" ")


def check_drawn(
    stage: str,
    library: Generator,
    sample: Sample,
    drawn: Sequence[int],
    *,
    filters: Mapping[str, float],
    noise: Noise,
) -> Check:
    """Demands the model's own settings of chance, and that what was drawn is among the tokens that they leave.

    Args:
        stage: Name of the stage.
        library: With the reference inside.
        sample: The prompt.
        drawn: The tokens that a bundle drew.
        filters: Temperature and filters that the bundle draws with.
        noise: Puts the reference under noise of a seed.
    """
    outside = 0
    for step, token in enumerate(drawn):
        before = list(drawn[:step])
        allowed = bool(library.drawable(sample, before)[token])
        for seed in () if allowed else range(FEWEST_NOISE_RUNS):
            with noise(seed):
                allowed = allowed or bool(library.drawable(sample, before)[token])
        outside += not allowed
    others = [
        f"{name} {filters[name]:g} instead of {value:g}"
        for name, value in library.filters.items()
        if filters[name] != value
    ]
    detail = f"{len(drawn)} tokens drawn by chance, all among those that the model's settings leave"
    if outside:
        detail = f"{outside} of {len(drawn)} tokens drawn by chance are none that the model's settings leave"
    if others:
        detail = f"tokens are drawn with {', '.join(others)}"
    passed = outside == 0 and not others
    return Check(f"{stage}, drawn tokens", "meaning", passed, detail, {"drawn": len(drawn), "outside": outside})


def _fault(
    library: Generator, sample: Sample, wanted: Generated, found: BundleText, noise: Noise
) -> str | None:
    if found.ids == wanted.ids:
        return None
    pairs = zip(found.ids, wanted.ids, strict=False)
    step = next((at for at, (mine, its) in enumerate(pairs) if mine != its), None)
    if step is None:
        if found.full and len(found.ids) < len(wanted.ids):
            return None
        return f"{len(found.ids)} tokens instead of {len(wanted.ids)}, the same as far as both go"
    if wanted.scores is None:
        return _fault_of_beams(library, sample, wanted, found, noise)
    mine, its = found.ids[step], wanted.ids[step]
    where = f"token {step + 1} is {mine} instead of {its}"
    lead = float(wanted.scores[step][its] - wanted.scores[step][mine])
    clean = library.leads(sample, wanted.ids[:step], (its, mine))
    moved = 0.0
    for seed in range(FEWEST_NOISE_RUNS):
        with noise(seed):
            moved = max(moved, abs(library.leads(sample, wanted.ids[:step], (its, mine)) - clean))
    if lead <= FACTOR * moved:
        return None
    return f"{where}, whose lead of {lead:.2e} is more than {FACTOR:.0f} times the noise of {moved:.2e}"


def _fault_of_beams(
    library: Generator, sample: Sample, wanted: Generated, found: BundleText, noise: Noise
) -> str | None:
    """The best text of several beams may be another one where the scores of both are as near as noise moves them."""
    moved, count = 0.0, len(wanted.ids)
    for seed in range(FEWEST_NOISE_RUNS):
        with noise(seed):
            again = library.generate(sample, count)
        if again.ids == found.ids:
            return None
        moved = max(moved, abs((again.score or 0.0) - (wanted.score or 0.0)))
    apart = abs((found.score if found.score is not None else float("nan")) - (wanted.score or 0.0))
    if apart <= FACTOR * moved:
        return None
    return f"another text than the best of {library.beams} beams, whose score is {apart:.2e} away (noise: {moved:.2e})"
