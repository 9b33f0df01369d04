"""The loss on similarities between the embeddings of a batch: which texts are near which."""

from __future__ import annotations

import torch
from torch.nn import functional


def similarity_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the cosines between all texts of a batch: a float32 scalar.

    Embeddings that all turn by the same angle keep their neighbours; a loss text by text does not see the difference
    (Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019, section 3.1, with cosines instead of products).

    Args:
        student: ``[batch, width]``.
        teacher: ``[batch, width]``.
    """
    own = functional.normalize(student.float(), dim=-1)
    wanted = functional.normalize(teacher.detach().float(), dim=-1)
    return (own @ own.T - wanted @ wanted.T).square().mean()
