"""The float layers that can be packed, and their weights with one row an output feature."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.quant.plan import LayerKind

FLOAT_CLASSES: dict[LayerKind, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear, Conv1D),
    "embedding": (nn.Embedding,),
}


def weight_rows(module: nn.Module) -> torch.Tensor:
    """Returns the weights of a float layer: ``[N, K]``; GPT-2's ``Conv1D`` stores them the other way round."""
    weight = module.get_parameter("weight")
    return weight.T if isinstance(module, Conv1D) else weight
