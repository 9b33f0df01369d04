"""Generation: which token a stage would choose, wherever PyTorch's choice is clear.

A choice is clear if the two leading logits lie farther apart than twice the noise of such logits: what noise
of one ulp in front of every quantizer makes of them, 99 times in 100.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgeq.parity.feeds import Arrays
from edgeq.parity.report import Check

_QUANTILE = 0.99


@dataclasses.dataclass(frozen=True)
class Choices:
    """The reference's choices at all steps of all texts.

    Attributes:
        leading: The two likeliest tokens, the likeliest first: one array ``[batch, new, 2]`` for each batch.
        logits: Their logits, of the same shapes.
    """

    leading: list[np.ndarray]
    logits: list[np.ndarray]

    @classmethod
    def of(cls, outputs: Sequence[Arrays]) -> Choices:
        """Reads them from logits ``[batch, new, vocabulary]``."""
        leading, logits = [], []
        for batch in outputs:
            two = np.argpartition(batch["logits"], -2, axis=-1)[..., -2:]
            values = np.take_along_axis(batch["logits"], two, axis=-1)
            order = np.argsort(-values, axis=-1, kind="stable")
            leading.append(np.take_along_axis(two, order, axis=-1))
            logits.append(np.take_along_axis(values, order, axis=-1))
        return cls(leading, logits)

    def moved(self, outputs: Sequence[Arrays]) -> np.ndarray:
        """Returns by how much another run moved the leading logits."""
        found = [np.take_along_axis(o["logits"], two, axis=-1) for o, two in zip(outputs, self.leading, strict=True)]
        pairs = zip(found, self.logits, strict=True)
        return np.concatenate([np.abs(got - want).ravel() for got, want in pairs])


def logit_noise(moved: Sequence[np.ndarray]) -> float:
    """Returns the noise of leading logits, from what each noise run moved them by."""
    return float(np.quantile(np.concatenate(moved), _QUANTILE))


def check_steps(stage: str, got: Sequence[Arrays], want: Choices, *, noise: float) -> Check:
    """Applies the rule to one stage, which may have fewer steps than the reference.

    Args:
        stage: Its name.
        got: Its logits.
        want: The reference's choices.
        noise: What :func:`logit_noise` returned.
    """
    steps = clear = parted = unclear_parted = 0
    for outputs, two, logits in zip(got, want.leading, want.logits, strict=True):
        count = outputs["logits"].shape[1]
        other = outputs["logits"].argmax(axis=-1) != two[:, :count, 0]
        is_clear = logits[:, :count, 0] - logits[:, :count, 1] > 2 * noise
        steps += other.size
        clear += int(is_clear.sum())
        parted += int((other & is_clear).sum())
        unclear_parted += int((other & ~is_clear).sum())
    share = clear / max(1, steps)
    detail = (
        f"{parted} of {clear} clear choices differ ({share:.1%} of {steps} steps are clear, "
        f"margin above {2 * noise:.2e}); {unclear_parted} of the others differ"
    )
    measured: dict[str, float | int | str] = {
        "changed": parted,
        "clear": clear,
        "steps": steps,
        "share_clear": share,
        "noise": noise,
        "unclear_changed": unclear_parted,
    }
    return Check(stage, "task", parted == 0, detail, measured)


def check_free_running(
    stage: str, made: Sequence[np.ndarray], reference: Sequence[np.ndarray], want: Choices, *, noise: float
) -> Check:
    """Demands that texts which a stage wrote by itself part from the reference's only where that was not clear.

    What follows the first difference was made from another text and says nothing.

    Args:
        stage: Its name.
        made: Its tokens, one array ``[batch, new]`` for each batch.
        reference: The reference's tokens, of the same shapes.
        want: The reference's choices.
        noise: What :func:`logit_noise` returned.
    """
    texts = parted = wrongly = 0
    for tokens, others, logits in zip(made, reference, want.logits, strict=True):
        for row, differs in enumerate(tokens != others):
            texts += 1
            if differs.any():
                step = int(differs.argmax())
                parted += 1
                wrongly += int(logits[row, step, 0] - logits[row, step, 1] > 2 * noise)
    detail = f"{parted} of {texts} texts part from the reference's, {wrongly} of them at a clear choice"
    return Check(stage, "task", wrongly == 0, detail, {"parted": parted, "texts": texts, "parted_clearly": wrongly})
