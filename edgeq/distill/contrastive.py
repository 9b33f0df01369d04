"""Token-level contrastive distillation: each token is told from the others of its sequence."""

from __future__ import annotations

import torch
from torch.nn import functional


class ContrastiveLoss:
    """The loss L_cont of QuantGPT (Tao et al., ACL 2022), with its momentum bank of student features.

    For token i with student feature q_i and teacher feature f_i: ``qbar_i = m * bank_i + (1 - m) * q_i``, and the
    loss is ``-log(exp(cos(qbar_i, f_i) / tau) / sum_j exp(cos(qbar_i, f_j) / tau))`` over i itself and its
    negatives j, other tokens of the same sequence with the teacher's features. The bank holds one feature a
    token of the training data, in float16 and on the CPU, from the first time the token was seen; with momentum
    0 there is none. The paper's linear projection of the features is left out.

    Args:
        temperature: tau.
        momentum: m, 0 up to but not including 1.
        negatives: How many other tokens each one is compared with; None is all of its sequence.
    """

    def __init__(
        self, *, temperature: float = 0.1, momentum: float = 0.0, negatives: int | None = None
    ) -> None:
        self.temperature = temperature
        self.momentum = momentum
        self.negatives = negatives
        self._bank: dict[int, torch.Tensor] = {}

    def __call__(
        self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, examples: torch.Tensor
    ) -> torch.Tensor:
        """Computes the loss of a batch and moves its part of the bank.

        Args:
            student: float, ``[batch, sequence, width]``.
            teacher: float, the same shape.
            mask: bool, ``[batch, sequence]``: real tokens, padding behind them.
            examples: int64, ``[batch]``: number of each sequence in the training data.

        Returns:
            A float32 scalar: the mean over real tokens.
        """
        student, teacher = student.float(), teacher.detach().float()
        averaged = self._averaged(student, mask, examples) if self.momentum else student
        cosines = functional.normalize(averaged, dim=-1) @ functional.normalize(teacher, dim=-1).transpose(1, 2)
        compared = self._compared(mask)
        scores = (cosines / self.temperature).masked_fill(~compared, torch.finfo(torch.float32).min)
        losses = scores.logsumexp(dim=-1) - scores.diagonal(dim1=1, dim2=2)
        return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp(min=1)

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the bank as tensors, for a training checkpoint."""
        return {str(example): features for example, features in sorted(self._bank.items())}

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes the bank that :meth:`state` returned."""
        self._bank = {int(name): features.clone() for name, features in tensors.items()}

    def _averaged(self, student: torch.Tensor, mask: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        before = student.detach().clone()
        lengths = mask.sum(dim=1).tolist()
        for row, (example, length) in enumerate(zip(examples.tolist(), lengths, strict=True)):
            if (known := self._bank.get(example)) is not None:
                before[row, :length] = known.to(student.device, torch.float32)
        averaged = self.momentum * before + (1 - self.momentum) * student
        stored = averaged.detach().to("cpu", torch.float16)
        for row, (example, length) in enumerate(zip(examples.tolist(), lengths, strict=True)):
            self._bank[example] = stored[row, :length].clone()
        return averaged

    def _compared(self, mask: torch.Tensor) -> torch.Tensor:
        """Chooses what each token is compared with: itself and its negatives; bool ``[batch, sequence, sequence]``."""
        batch, length = mask.shape
        possible = (mask[:, :, None] & mask[:, None, :]).clone()
        own = torch.eye(length, dtype=torch.bool, device=mask.device).expand(batch, -1, -1)
        if self.negatives is not None and self.negatives + 1 < length:
            order = torch.rand(batch, length, length, device=mask.device)
            order = order.masked_fill(~possible, 2.0).masked_fill(own, -1.0)
            nearest = order.topk(self.negatives + 1, dim=-1, largest=False).indices
            possible &= torch.zeros_like(possible).scatter(-1, nearest, value=True)
        return possible | own
