"""Gets factorised layers ready to be packed: what is stored must be what is multiplied, in the order it is read."""

from __future__ import annotations

import torch
from torch import nn

from edgeq.factor.kinds import KINDS


@torch.no_grad()
def prepare_for_packing(model: nn.Module, *, fold: bool, tokens: int) -> None:
    """Lets every kind of layer change how it is stored, such as a Tucker bank that has to be untied.

    Args:
        model: A float model, factorised or not; changed in place, its function is not.
        fold: Multiply cores into the outer factor with which the layer then costs less.
        tokens: What the cost model counts with.
    """
    for kind in KINDS.values():
        kind.prepare(model, fold=fold, tokens=tokens)
