"""Generation: which token a stage would choose, wherever PyTorch's choice is clear.

What decides a choice is how far the most likely token lies ahead of the others, and noise moves that lead very
differently from step to step: a quantizer that steps early in a text moves all that follows, while logits that
move together change no lead at all. So every step has a margin of its own. A choice is clear if the lead over each
of the next tokens is more than twice the noise of that lead: the most that noise of one ulp in front of every
quantizer moved it by in any run, and never less than what it moves leads by on the whole.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from edgeq.backends import Arrays
from edgeq.parity.rules.rule import BundleOutputs, Outputs, Rule, StageOutputs
from edgeq.results import Check

RUNS = 16
"""Noise runs that margins need: judged by 8 others, one of 50 runs of the zoo's models was found wrong; by 16, none."""
_FACTOR = 2.0
_LEADING = 8
"""Tokens of a step that are watched; those behind them are farther away still."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """The reference's choices at all steps of all texts.

    Attributes:
        leading: The most likely tokens, the most likely first: int64 ``[batch, new, 8]`` for each batch.
        leads: By how much the first one's logit is above each other's: ``[batch, new, 7]``.
    """

    leading: list[np.ndarray]
    leads: list[np.ndarray]

    @classmethod
    def of(cls, outputs: Sequence[Arrays]) -> Choices:
        """Reads them from logits ``[batch, new, vocabulary]``."""
        leading = []
        for batch in outputs:
            count = min(_LEADING, batch["logits"].shape[-1])
            found = np.argpartition(batch["logits"], -count, axis=-1)[..., -count:]
            order = np.argsort(-np.take_along_axis(batch["logits"], found, axis=-1), axis=-1, kind="stable")
            leading.append(np.take_along_axis(found, order, axis=-1))
        return cls(leading, [_leads(batch, tokens) for batch, tokens in zip(outputs, leading, strict=True)])

    def moved(self, outputs: Sequence[Arrays]) -> list[np.ndarray]:
        """Returns by how much another run moved the leads."""
        batches = zip(outputs, self.leading, self.leads, strict=True)
        return [np.abs(_leads(batch, tokens) - want) for batch, tokens, want in batches]


def _leads(batch: Arrays, tokens: np.ndarray) -> np.ndarray:
    logits = np.take_along_axis(batch["logits"], tokens, axis=-1)
    return logits[..., :1] - logits[..., 1:]


@dataclasses.dataclass(frozen=True)
class ClearChoices:
    """The reference's tokens, and where they were clear.

    Attributes:
        tokens: int64 ``[batch, new]`` for each batch.
        clear: bool, of the same shapes.
        noise: How far noise moves the lead over the second token: root of the mean square over all steps and runs.
    """

    tokens: list[np.ndarray]
    clear: list[np.ndarray]
    noise: float

    @classmethod
    def under(cls, choices: Choices, moved: Sequence[list[np.ndarray]]) -> ClearChoices:
        """Judges every step.

        Args:
            choices: The reference's.
            moved: For each noise run what :meth:`Choices.moved` returned.
        """
        over_second = np.concatenate([batch[..., 0].ravel() for run in moved for batch in run])
        noise = float(np.sqrt(np.mean(over_second.astype(np.float64) ** 2)))
        clear = []
        for number, leads in enumerate(choices.leads):
            most = np.max([run[number] for run in moved], axis=0)
            clear.append((leads > _FACTOR * np.maximum(noise, most)).all(axis=-1))
        return cls([tokens[..., 0] for tokens in choices.leading], clear, noise)


class ChosenTokens(Rule):
    """Every token that PyTorch chose clearly is chosen again, step by step and free-running."""

    name = "chosen tokens"
    fewest_noise_runs = RUNS

    def __init__(self, reference: Outputs) -> None:
        super().__init__(reference)
        self._choices = Choices.of(reference.results.arrays)
        self._moved: list[list[np.ndarray]] = []

    @classmethod
    def is_for(cls, reference: Outputs) -> bool:
        """See :meth:`Rule.is_for`."""
        return reference.generates

    @functools.cached_property
    def _clear(self) -> ClearChoices:
        return ClearChoices.under(self._choices, self._moved)

    def watch(self, whole: StageOutputs, beginning: StageOutputs) -> Sequence[float]:
        """See :meth:`Rule.watch`."""
        del beginning  # its choices are the first of the whole
        self._moved.append(self._choices.moved(whole.got.results.arrays))
        return ()

    def of_stage(self, stage: StageOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_stage`."""
        return [check_steps(stage.name, stage.got.results.arrays, self._clear)]

    def of_bundle(self, bundle: BundleOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_bundle`."""
        if not bundle.generated:
            return ()
        stage = f"{bundle.stage}, free-running"
        return [check_free_running(stage, bundle.generated, bundle.reference, self._clear)]


def check_steps(stage: str, got: Sequence[Arrays], want: ClearChoices) -> Check:
    """Applies the rule to one stage, which may have fewer steps than the reference.

    Args:
        stage: Its name.
        got: Its logits.
        want: The reference's choices.
    """
    steps = clear = changed = unclear_changed = 0
    for outputs, tokens, is_clear in zip(got, want.tokens, want.clear, strict=True):
        count = outputs["logits"].shape[1]
        other = outputs["logits"].argmax(axis=-1) != tokens[:, :count]
        steps += other.size
        clear += int(is_clear[:, :count].sum())
        changed += int((other & is_clear[:, :count]).sum())
        unclear_changed += int((other & ~is_clear[:, :count]).sum())
    share = clear / max(1, steps)
    detail = (
        f"{changed} of {clear} clear choices differ ({share:.1%} of {steps} steps are clear, noise moves leads by "
        f"rms {want.noise:.2e}); {unclear_changed} of the others differ"
    )
    measured: dict[str, float | int | str] = {
        "changed": changed,
        "clear": clear,
        "steps": steps,
        "share_clear": share,
        "noise": want.noise,
        "unclear_changed": unclear_changed,
    }
    return Check(stage, "task", changed == 0, detail, measured)


def check_free_running(
    stage: str, generated: Sequence[np.ndarray], reference: Sequence[np.ndarray], want: ClearChoices
) -> Check:
    """Demands that greedy texts of a stage differ from the reference's first at a step whose choice was not clear.

    What follows the first difference was generated from another text and says nothing.

    Args:
        stage: Its name.
        generated: Its tokens, one array ``[batch, new]`` for each batch.
        reference: The reference's tokens, of the same shapes.
        want: The reference's choices.
    """
    texts = different = wrongly = 0
    for tokens, others, is_clear in zip(generated, reference, want.clear, strict=True):
        for row, differs in enumerate(tokens != others):
            texts += 1
            if differs.any():
                different += 1
                wrongly += int(is_clear[row, int(differs.argmax())])
    detail = f"{different} of {texts} texts differ from the reference's, {wrongly} of them first at a clear choice"
    measured: dict[str, float | int | str] = {"different": different, "texts": texts, "clearly_different": wrongly}
    return Check(stage, "task", wrongly == 0, detail, measured)
