"""The task: how many decisions a stage takes differently from PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.backends import Arrays
from edgeq.formats.tasks import TASKS
from edgeq.models.sentence import EMBEDDING
from edgeq.parity.rules.rule import Outputs, Rule, StageOutputs
from edgeq.results import Check

SPARE = 2
"""Decisions that may differ beyond what noise changes."""


class Decisions(Rule):
    """Labels and nearest texts change no more often than under noise, plus two."""

    name = "decisions"

    def __init__(self, reference: Outputs) -> None:
        super().__init__(reference)
        self._want = _of_texts(reference)
        self._noisy: list[np.ndarray] = []

    @classmethod
    def is_for(cls, reference: Outputs) -> bool:
        """See :meth:`Rule.is_for`."""
        return reference.texts is not None

    def watch(self, whole: StageOutputs, beginning: StageOutputs) -> Sequence[float]:
        """See :meth:`Rule.watch`."""
        del beginning  # has no texts
        self._noisy.append(_of_texts(whole.got))
        return ()

    def of_stage(self, stage: StageOutputs) -> Sequence[Check]:
        """See :meth:`Rule.of_stage`."""
        if stage.got.texts is None:
            return ()
        return [check_task(stage.name, _of_texts(stage.got), self._want, self._noisy)]


def _of_texts(outputs: Outputs) -> np.ndarray:
    texts = outputs.texts
    return np.zeros(0, np.int64) if texts is None else decisions(texts.arrays, texts.feeds)


def decisions(outputs: Sequence[Arrays], feeds: Sequence[Arrays]) -> np.ndarray:
    """Returns what the model decides for each text, or for each of its tokens.

    A classifier decides for the label of the largest logit, of the text or of each token. One with a single logit
    decides which of two texts that follow each other is graded higher. A model that answers questions decides where the
    answer starts and where it ends. An encoder of sentences decides which of the other texts is nearest (cosine).

    Args:
        outputs: Outputs by name, one mapping a batch of texts.
        feeds: The inputs of each batch; ``attention_mask`` says which tokens count.

    Returns:
        int64, one entry a decision.
    """
    if "logits" in outputs[0]:
        pairs = zip(outputs, feeds, strict=True)
        labels = np.concatenate([_labels(batch["logits"], feed["attention_mask"] > 0) for batch, feed in pairs])
        return (np.diff(labels) > 0).astype(np.int64) if labels.dtype.kind == "f" else labels
    if spans := [name for name in TASKS["answer"].outputs if name in outputs[0]]:
        return np.concatenate(
            [
                np.where(feed["attention_mask"] > 0, batch[name], -np.inf).argmax(axis=-1)
                for batch, feed in zip(outputs, feeds, strict=True)
                for name in spans
            ]
        )
    stacked = np.concatenate([batch[EMBEDDING] for batch in outputs]).astype(np.float64)
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True) + 1e-30
    cosines = stacked @ stacked.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def _labels(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels of texts or of tokens; the grades themselves where there is a single logit."""
    chosen = logits[mask] if logits.ndim == mask.ndim + 1 else logits
    return chosen[:, 0] if chosen.shape[-1] == 1 else chosen.argmax(axis=-1)


def check_task(stage: str, got: np.ndarray, want: np.ndarray, noisy: Sequence[np.ndarray]) -> Check:
    """Applies the rule to one stage.

    Args:
        stage: Its name.
        got: Its decisions.
        want: The reference's decisions.
        noisy: The decisions of each noise run.
    """
    changed = int((got != want).sum())
    under_noise = max(int((run != want).sum()) for run in noisy)
    limit = under_noise + SPARE
    why = f"noise changes {under_noise}, plus {SPARE}"
    detail = f"{changed} of {len(want)} decisions differ (limit {limit}: {why})"
    measured: dict[str, float | int | str] = {"changed": changed, "limit": limit, "texts": len(want)}
    return Check(stage, "task", changed <= limit, detail, measured)
