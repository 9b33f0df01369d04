"""The float layers that can be packed, their weights with one row an output feature, and what these will take."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeq.formats.low_bit import PackedMatrix
from edgeq.formats.quantization_config import LayerKind
from edgeq.quant.plan import LayerPlan

FLOAT_CLASSES: dict[LayerKind, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear, Conv1D),
    "embedding": (nn.Embedding,),
}


def weight_rows(module: nn.Module) -> torch.Tensor:
    """Returns the weights of a float layer: ``[N, K]``; GPT-2's ``Conv1D`` stores them the other way round."""
    weight = module.get_parameter("weight")
    return weight.T if isinstance(module, Conv1D) else weight


def planned_bytes(plan: LayerPlan, layer: nn.Module) -> int:
    """Returns the bytes of codes, padding and scales that a layer will store; 0 for float and tied layers.

    Args:
        plan: How the layer is to be stored.
        layer: The float layer, on any device.
    """
    if plan.grid is None or plan.tied_to is not None:
        return 0
    rows, columns = weight_rows(layer).shape
    spec = PackedMatrix(rows, columns, plan.grid.stored_bits, plan.grid.zero_point, rows if plan.per_row else 1)
    return spec.packed_bytes + spec.scale_bytes
