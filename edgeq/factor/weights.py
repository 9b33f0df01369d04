"""The weights of a layer that may be float, in training with a quantizer, or packed."""

from __future__ import annotations

import torch
from torch import nn

from edgeq.quant.modules import PackedModule
from edgeq.quant.trainable_layers import TrainableLayer


def weight_of(module: nn.Module) -> torch.Tensor:
    """Returns the weights that a layer stands for: float32, one row an output feature or table entry.

    Those of a packed layer are decoded, those of a layer in training are rounded with its quantizer's gradient;
    others are the parameter itself.
    """
    if isinstance(module, PackedModule):
        return module.dequantized()
    if isinstance(module, TrainableLayer):
        return module.decoded_weight()
    weight: torch.Tensor = module.weight  # type: ignore[assignment]  # nn.Module declares any attribute
    return weight
